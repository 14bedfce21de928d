package io.qnbd.image;

/** Is told where the ranges of a disk are, one after the other. */
@FunctionalInterface
public interface MapSink {
  /**
   * The next {@code bytes} (more than 0) are there.
   *
   * @return whether to go on; after a no it is not called again
   */
  boolean extent(long bytes, MapExtent extent);
}
