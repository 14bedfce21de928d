package io.qnbd.image;

/** Is told what a dirty bitmap says, piece by piece in ascending order and without gaps. */
@FunctionalInterface
public interface DirtySink {
  /**
   * The next piece.
   *
   * @param bytes its length, at least 1
   * @param dirty the opposite of the last piece's
   * @return whether to go on
   */
  boolean extent(long bytes, boolean dirty);
}
