package io.qnbd.image;

/**
 * Which backing files an image may name. The name stands in the image, so whoever wrote the image
 * chose it; a name with a protocol prefix ({@code json:}, {@code nbd:}, ...) is never opened.
 */
public enum BackingPolicy {
  /** Images that name a backing file are refused. */
  NONE,
  /**
   * The backing file must lie, symbolic links resolved, in the directory of the image that names it
   * or below it.
   */
  SAME_DIRECTORY,
  /** Any plain path. */
  ANY
}
