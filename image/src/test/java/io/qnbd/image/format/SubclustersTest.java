package io.qnbd.image.format;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.random.SeededRandom;
import org.junit.jupiter.api.Test;

final class SubclustersTest {
  private static final long AT = L2Entry.data(1 << 16);

  @Test
  void allocatedIsTheLowHalfAndZeroTheHighOne() {
    assertEquals(0x8000_0001_0000_0006L, Subclusters.of(6, 0x8000_0001));
    assertEquals(0x0000_0000_ffff_ffffL, Subclusters.of(Subclusters.ALL, 0));
    assertEquals(0xffff_ffff_0000_0000L, Subclusters.of(0, Subclusters.ALL));
    assertEquals(6, Subclusters.allocated(0x8000_0001_0000_0006L));
    assertEquals(0x8000_0001, Subclusters.zero(0x8000_0001_0000_0006L));
  }

  @Test
  void masksAndRunsAgreeBitByBit() {
    SeededRandom random = new SeededRandom(1);
    for (int first = 0; first <= Subclusters.COUNT; first++) {
      for (int end = first; end <= Subclusters.COUNT; end++) {
        int mask = Subclusters.mask(first, end);
        for (int x = 0; x < Subclusters.COUNT; x++) {
          assertEquals(x >= first && x < end, (mask >>> x & 1) != 0, first + " to " + end);
        }
        if (first < Subclusters.COUNT) {
          int others =
              (int) random.nextLong() & ~mask & ~Subclusters.mask(end, Math.min(32, end + 1));
          assertEquals(end - first, Subclusters.run(mask | others, first), first + " to " + end);
        }
      }
    }
  }

  @Test
  void knowsWhatContradictsItself() {
    assertTrue(Subclusters.consistent(0, 0));
    assertTrue(Subclusters.consistent(0, Subclusters.of(0, 5)));
    assertTrue(Subclusters.consistent(AT, 0));
    assertTrue(Subclusters.consistent(AT, Subclusters.of(0xffff, 0xffff_0000)));
    assertFalse(Subclusters.consistent(AT, Subclusters.of(1 << 31, 1 << 31)), "both");
    assertFalse(Subclusters.consistent(0, Subclusters.of(1, 0)), "allocated nowhere");
    assertTrue(Subclusters.consistent(L2Entry.COMPRESSED | 512, 0));
    assertFalse(Subclusters.consistent(L2Entry.COMPRESSED | 512, Subclusters.of(1, 0)));
    assertFalse(Subclusters.consistent(L2Entry.COMPRESSED | 512, Subclusters.of(0, 1)));
  }

  @Test
  void extendedEntriesTakeTwiceTheRoom() {
    Geometry geometry = new Geometry(16, 4, true);
    assertEquals(4096, geometry.l2Entries());
    assertEquals(4096L << 16, geometry.l2CoverageBytes());
    assertEquals(256, geometry.sliceEntries());
    assertEquals(512, geometry.sliceWords());
    assertEquals(2048, geometry.subclusterBytes());
    assertEquals(31, geometry.subclusterOf((7L << 16) + 65535));
    assertEquals(0, geometry.subclusterOf((7L << 16) + 2047));
  }
}
