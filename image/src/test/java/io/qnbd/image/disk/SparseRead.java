package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** Reads that leave zeroes out, with all that must be so of what they tell. */
final class SparseRead {
  private static final byte UNTOUCHED = 0x5a;

  private SparseRead() {}

  /** A range that was told. */
  record Range(int at, int bytes) {}

  /** Reads; the zeroes that were told are filled into {@code target}. Returns all that was read. */
  static byte[] of(DiskImage image, long offset, ByteBuffer target) throws IOException {
    read(image, offset, target);
    byte[] bytes = new byte[target.flip().remaining()];
    target.get(bytes);
    return bytes;
  }

  /** The same, but returns the ranges that were told. */
  static List<Range> read(DiskImage image, long offset, ByteBuffer target) throws IOException {
    int start = target.position();
    int count = target.remaining();
    for (int i = 0; i < count; i++) {
      target.put(start + i, UNTOUCHED);
    }
    List<Range> told = new ArrayList<>();
    image.read(offset, target, (at, bytes) -> told.add(new Range(at, bytes)));
    assertEquals(0, target.remaining(), "left of the target");
    int end = -1;
    for (Range range : told) {
      assertTrue(range.at() > end && range.bytes() > 0, () -> "zeroes told: " + told);
      end = range.at() + range.bytes();
      for (int i = range.at(); i < end; i++) {
        assertEquals(UNTOUCHED, target.get(start + i), "a byte of the zeroes told");
        target.put(start + i, (byte) 0);
      }
    }
    assertTrue(end <= count, () -> "zeroes told: " + told + " of " + count);
    return told;
  }
}
