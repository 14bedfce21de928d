package io.qnbd.protocol;

/**
 * A metadata context that a client has selected (NBD protocol, "Metadata querying").
 *
 * @param id names it in BLOCK_STATUS; not 0, and never used twice on one connection
 * @param name namespace, colon, leaf: {@code base:allocation}
 */
public record SelectedContext(int id, String name) {

  public SelectedContext {
    if (id == 0) {
      throw new IllegalArgumentException("context id 0 is kept for lists");
    }
  }
}
