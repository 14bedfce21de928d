package io.qnbd.image;

/** Is told the extents of a disk, one after the other. */
@FunctionalInterface
public interface ExtentSink {
  /**
   * The next {@code bytes} (more than 0) are in this state.
   *
   * @return whether to go on; after a no it is not called again
   */
  boolean extent(long bytes, ExtentState state);
}
