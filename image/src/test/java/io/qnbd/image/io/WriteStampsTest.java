package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

final class WriteStampsTest {
  private static final long PAGE = WriteStamps.PAGE_BYTES;

  private final WriteStamps stamps = new WriteStamps();

  @Test
  void findsAWriteUnderWay() {
    stamps.begin(PAGE, 1);
    assertEquals(WriteStamps.BUSY, stamps.before(0, 2 * PAGE));
    assertEquals(WriteStamps.BUSY, stamps.before(2 * PAGE - 1, 1));
    assertNotEquals(WriteStamps.BUSY, stamps.before(0, PAGE));
    assertNotEquals(WriteStamps.BUSY, stamps.before(2 * PAGE, 1));
    stamps.end(PAGE, 1);
    assertNotEquals(WriteStamps.BUSY, stamps.before(0, 2 * PAGE));
  }

  @Test
  void findsAWriteThatBeganAndEndedMeanwhile() {
    long before = stamps.before(0, 3 * PAGE);
    assertTrue(stamps.unchanged(0, 3 * PAGE, before));
    stamps.begin(3 * PAGE - 1, 2);
    assertFalse(stamps.unchanged(0, 3 * PAGE, before));
    stamps.end(3 * PAGE - 1, 2);
    assertFalse(stamps.unchanged(0, 3 * PAGE, before));
    assertTrue(stamps.unchanged(0, 2 * PAGE, stamps.before(0, 2 * PAGE)));
  }

  @Test
  void countsWritesOfOnePage() {
    stamps.begin(7, 1);
    stamps.begin(7, 1);
    stamps.end(7, 1);
    assertEquals(WriteStamps.BUSY, stamps.before(0, 1));
    stamps.end(7, 1);
    assertNotEquals(WriteStamps.BUSY, stamps.before(0, 1));
  }

  @Test
  void takesRangesLargerThanAllStamps() {
    long all = 1L << 40;
    long before = stamps.before(5, all);
    stamps.begin(5, all);
    assertEquals(WriteStamps.BUSY, stamps.before(77 * PAGE, 1));
    stamps.end(5, all);
    assertNotEquals(WriteStamps.BUSY, stamps.before(0, all));
    assertFalse(stamps.unchanged(5, all, before));
  }
}
