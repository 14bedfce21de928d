package io.qnbd.image.format;

import io.qnbd.image.UnsupportedImageException;

/** To which sizes a disk may grow while it is in use, whatever its format. */
public final class GrowRules {
  /** What QEMU's disks are made of. */
  private static final int SECTOR_BYTES = 512;

  private GrowRules() {}

  /** Throws unless a disk of {@code virtualBytes} may be made one of {@code bytes}. */
  public static void check(String fileName, long virtualBytes, long bytes)
      throws UnsupportedImageException {
    if (bytes < virtualBytes) {
      throw new UnsupportedImageException(
          "%s: its disk has %d bytes and can't shrink to %d while it is in use"
              .formatted(fileName, virtualBytes, bytes));
    }
    if (bytes != virtualBytes && bytes % SECTOR_BYTES != 0) {
      throw new UnsupportedImageException(
          "%s: its disk can't grow to %d bytes, which is no multiple of %d"
              .formatted(fileName, bytes, SECTOR_BYTES));
    }
  }
}
