package io.qnbd.image.disk;

import io.qnbd.image.random.SeededRandom;
import java.nio.ByteBuffer;
import java.util.Arrays;

/** Bytes for guests to write: cheap to make, and each sector of each write unlike all others. */
final class Pattern {
  private static final int SECTOR_BYTES = 512;

  private Pattern() {}

  /** Fills the array; bytes that a write leaves alone can be told from those that it wrote. */
  static byte[] fill(long stamp, int count) {
    ByteBuffer bytes = ByteBuffer.allocate((count + 7) & ~7);
    for (int at = 0; at < count; at += 8) {
      long value = (stamp + at / SECTOR_BYTES) * 0x9e3779b97f4a7c15L;
      bytes.putLong(at, (value ^ (value >>> 29)) | 1);
    }
    return Arrays.copyOf(bytes.array(), count);
  }

  /** Patterns here and there, zeroes between them. */
  static void scatter(SeededRandom random, byte[] disk) {
    for (int at = 0; at < disk.length; ) {
      int count = (int) Math.min(disk.length - at, random.skewed(512, 65536));
      if (random.chance(60)) {
        System.arraycopy(fill(random.nextLong(), count), 0, disk, at, count);
      }
      at += count;
    }
  }
}
