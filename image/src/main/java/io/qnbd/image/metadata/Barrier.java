package io.qnbd.image.metadata;

/**
 * Whether the next commit must sync before it writes L2 and L1 entries, because something that they
 * will refer to is not durable yet: data in a cluster that is not known to read as zeroes, data
 * that replaces other data, a copied L2 table, a refcount, the length of the file.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class Barrier {
  private boolean needed;

  /** What was just written must be durable before the next commit's entries are. */
  public void require() {
    needed = true;
  }

  /** Whether a sync is needed; the caller takes it upon itself. */
  public boolean take() {
    boolean was = needed;
    needed = false;
    return was;
  }
}
