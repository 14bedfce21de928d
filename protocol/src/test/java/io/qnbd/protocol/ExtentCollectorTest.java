package io.qnbd.protocol;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class ExtentCollectorTest {
  private static final long COMPACT = ExtentCollector.COMPACT_BYTES_MAX;
  private static final int PAYLOAD_BYTES = 64 << 20;

  private static Request.BlockStatus request(long bytes, boolean one) {
    return new Request.BlockStatus(one ? CommandFlags.REQ_ONE : 0, 1, 4096, bytes);
  }

  private static ExtentCollector all(long bytes, ReplyMode replies) {
    return new ExtentCollector(request(bytes, false), replies, PAYLOAD_BYTES);
  }

  private static ExtentCollector one(long bytes, ReplyMode replies) {
    return new ExtentCollector(request(bytes, true), replies, PAYLOAD_BYTES);
  }

  @Test
  void mergesNeighboursThatAreEqual() {
    ExtentCollector collector = all(1000, ReplyMode.STRUCTURED);
    assertTrue(collector.add(100, 0));
    assertTrue(collector.add(200, 0));
    assertTrue(collector.add(0, 7), "nothing at all");
    assertTrue(collector.add(300, 3));
    assertFalse(collector.add(400, 3));
    assertEquals(List.of(new Extent(300, 0), new Extent(700, 3)), collector.extents());
  }

  @Test
  void lastExtentMayGoOnPastTheRequest() {
    ExtentCollector collector = all(1000, ReplyMode.STRUCTURED);
    assertTrue(collector.add(999, 0));
    assertFalse(collector.add(5000, 1));
    assertFalse(collector.add(1, 2), "after the end");
    assertEquals(List.of(new Extent(999, 0), new Extent(5000, 1)), collector.extents());
  }

  @Test
  void lessThanAskedForIsLegal() {
    ExtentCollector collector = all(1000, ReplyMode.EXTENDED);
    assertTrue(collector.add(10, 5));
    assertEquals(List.of(new Extent(10, 5)), collector.extents());
    assertEquals(List.of(new Extent(10, 5)), collector.extents(), "asked again");
  }

  @Test
  void oneExtentIsMergedAndEndsWithTheRequest() {
    ExtentCollector merged = one(1000, ReplyMode.STRUCTURED);
    assertTrue(merged.add(300, 1));
    assertTrue(merged.add(300, 1));
    assertFalse(merged.add(300, 2));
    assertEquals(List.of(new Extent(600, 1)), merged.extents());
    ExtentCollector cut = one(1000, ReplyMode.EXTENDED);
    assertFalse(cut.add(1 << 20, 1));
    assertEquals(List.of(new Extent(1000, 1)), cut.extents());
  }

  @Test
  void splitsOnMultiplesOf64KiBWhereLengthsHave32Bits() {
    assertEquals(0, COMPACT % (64 << 10));
    ExtentCollector collector = all(0xffff_ffffL, ReplyMode.STRUCTURED);
    assertFalse(collector.add(1L << 40, 3));
    assertEquals(List.of(new Extent(COMPACT, 3), new Extent(COMPACT, 3)), collector.extents());
    ExtentCollector single = one(0xffff_ffffL, ReplyMode.STRUCTURED);
    assertFalse(single.add(1L << 40, 3));
    assertEquals(List.of(new Extent(COMPACT, 3)), single.extents());
  }

  @Test
  void splitsNothingWithExtendedHeaders() {
    ExtentCollector collector = all(1L << 50, ReplyMode.EXTENDED);
    assertTrue(collector.add(1L << 40, 3));
    assertTrue(collector.add(1L << 40, 3));
    assertEquals(List.of(new Extent(1L << 41, 3)), collector.extents());
  }

  @Test
  void neverMakesMoreExtentsThanTheProtocolAdvises() {
    ExtentCollector collector = all(1L << 40, ReplyMode.EXTENDED);
    int pieces = 0;
    while (collector.add(512, pieces & 1)) {
      pieces++;
    }
    assertEquals(1 << 20, collector.extents().size());
    assertEquals(1 << 20, pieces, "the one that began the extent too many was the last");
  }

  @Test
  void neverFillsMoreThanTheLargestPayload() {
    int payloadBytes = 4096;
    ExtentCollector collector =
        new ExtentCollector(request(1L << 40, false), ReplyMode.EXTENDED, payloadBytes);
    int pieces = 0;
    while (collector.add(512, pieces & 1)) {
      pieces++;
    }
    int wireBytes = 8 + 16 * collector.extents().size();
    assertTrue(wireBytes <= payloadBytes && wireBytes > payloadBytes - 32, wireBytes + " bytes");
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8})
  void saysWhatThePiecesSaidInAsFewLegalExtentsAsItCan(long seed) {
    Random random = new Random(seed);
    for (int i = 0; i < 3000; i++) {
      ReplyMode replies = random.nextBoolean() ? ReplyMode.STRUCTURED : ReplyMode.EXTENDED;
      boolean one = random.nextInt(4) == 0;
      long asked = 1 + (random.nextLong() >>> random.nextInt(24, 60));
      int countMax = one ? 1 : random.nextInt(1, 12);
      ExtentCollector collector =
          new ExtentCollector(request(asked, one), replies, (countMax + 1) * 16);
      List<Extent> pieces = new ArrayList<>();
      boolean wanted = true;
      while (wanted && pieces.size() < 40) {
        Extent piece =
            new Extent(1 + (random.nextLong() >>> random.nextInt(24, 62)), random.nextInt(2));
        pieces.add(piece);
        wanted = collector.add(piece.bytes(), piece.flags());
      }
      String step = "seed " + seed + ", step " + i;
      List<Extent> extents = collector.extents();
      checkLegal(extents, asked, one, replies, countMax, step);
      checkTrue(extents, pieces, step);
      if (wanted && !one) {
        assertEquals(sum(pieces), sum(extents), step + ": it wanted more and kept less");
      }
    }
  }

  private static void checkLegal(
      List<Extent> extents, long asked, boolean one, ReplyMode replies, int countMax, String step) {
    assertTrue(!extents.isEmpty() && extents.size() <= countMax, step);
    assertTrue(sum(extents.subList(0, extents.size() - 1)) < asked, step);
    assertTrue(!one || sum(extents) <= asked, step);
    for (int i = 0; i < extents.size(); i++) {
      boolean longest = replies != ReplyMode.EXTENDED && extents.get(i).bytes() == COMPACT;
      assertTrue(replies == ReplyMode.EXTENDED || extents.get(i).bytes() <= COMPACT, step);
      if (i > 0 && extents.get(i - 1).flags() == extents.get(i).flags()) {
        assertEquals(COMPACT, extents.get(i - 1).bytes(), step + ": not merged");
        assertNotEquals(ReplyMode.EXTENDED, replies, step);
      }
      assertTrue(!longest || extents.get(i).bytes() % 65536 == 0, step);
    }
  }

  /** Walks both and compares where either begins something new. */
  private static void checkTrue(List<Extent> extents, List<Extent> pieces, String step) {
    long at = 0;
    int piece = 0;
    long pieceEnd = pieces.getFirst().bytes();
    for (Extent extent : extents) {
      long end = at + extent.bytes();
      while (at < end) {
        assertEquals(pieces.get(piece).flags(), extent.flags(), step + ": at " + at);
        at = Math.min(end, pieceEnd);
        if (at == pieceEnd && piece + 1 < pieces.size()) {
          piece++;
          pieceEnd += pieces.get(piece).bytes();
        } else if (at == pieceEnd) {
          assertEquals(end, at, step + ": longer than what was told");
        }
      }
    }
  }

  private static long sum(List<Extent> extents) {
    return extents.stream().mapToLong(Extent::bytes).sum();
  }
}
