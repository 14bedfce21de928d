package io.qnbd.protocol;

/**
 * A piece of the disk whose status is the same all over.
 *
 * @param bytes its length, more than 0
 * @param flags the status, as the metadata context defines it; 32 bits unless headers are extended
 */
public record Extent(long bytes, long flags) {
  /** {@code base:allocation}: nothing is stored for it. */
  public static final int HOLE = 1;

  /** {@code base:allocation}: it reads as zeroes. */
  public static final int ZERO = 1 << 1;

  /** {@code qemu:dirty-bitmap:NAME}: it was written to since the bitmap was begun. */
  public static final int DIRTY = 1;

  public Extent {
    if (bytes <= 0) {
      throw new IllegalArgumentException("extent of " + bytes + " bytes, expected at least 1");
    }
  }
}
