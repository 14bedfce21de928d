package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.NavigableMap;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

final class ClusterCountsTest {
  @Test
  void behavesLikeAMap() {
    Seeds.run("cluster counts", 20, seed -> compareWithMap(new SeededRandom(seed)));
  }

  private static void compareWithMap(SeededRandom random) throws IOException {
    ClusterCounts counts = new ClusterCounts(1000);
    NavigableMap<Long, Integer> map = new TreeMap<>();
    for (int step = 0; step < 300; step++) {
      long cluster = random.skewed(0, 1L << 40);
      int times = random.between(1, 3);
      counts.add(cluster, ClusterUse.DATA, times);
      map.merge(cluster, times, Integer::sum);
      long from = random.skewed(0, 1L << 41);
      long end = from + random.skewed(0, 1L << 20);
      Long next = map.ceilingKey(from);
      assertEquals(next == null || next >= end ? end : next, counts.nextReferenced(from, end));
      assertEquals(map.getOrDefault(from, 0), counts.count(from));
    }
    map.forEach((cluster, times) -> assertEquals(times, counts.count(cluster)));
    assertEquals(map.lastKey() + 1, counts.end());
    assertArrayEquals(
        map.keySet().stream().mapToLong(Long::longValue).toArray(),
        counts.clustersOf(ClusterUse.DATA));
  }

  @Test
  void stopsAtTheLargestCount() throws IOException {
    ClusterCounts counts = new ClusterCounts(1);
    counts.add(3, ClusterUse.L2_TABLE, Integer.MAX_VALUE - 1);
    counts.add(3, ClusterUse.L2_TABLE, Integer.MAX_VALUE);
    assertEquals(Integer.MAX_VALUE, counts.count(3));
  }

  @Test
  void onlyTablesAndDataAreShared() throws IOException {
    ClusterCounts counts = new ClusterCounts(1);
    for (ClusterUse use : ClusterUse.values()) {
      long cluster = use.name().length();
      assertNull(new ClusterCounts(1).add(cluster, use, 1));
      ClusterCounts twice = new ClusterCounts(1);
      twice.add(cluster, use, 1);
      assertEquals(use.shareable() ? null : use, twice.add(cluster, use, 1));
    }
    assertNull(counts.add(1, ClusterUse.L2_TABLE, 1));
    assertEquals(ClusterUse.L2_TABLE, counts.add(1, ClusterUse.DATA, 1));
  }

  @Test
  void marksLeaveCountsAndUsesAlone() throws IOException {
    ClusterCounts counts = new ClusterCounts(1);
    counts.add(7, ClusterUse.L2_TABLE, 2);
    assertFalse(counts.storedOne(7));
    counts.markStoredOne(7);
    counts.markStoredOne(1 << 20); // not referenced: nothing to mark
    assertTrue(counts.storedOne(7));
    assertFalse(counts.activeTable(7));
    assertTrue(counts.markActiveTable(7));
    assertTrue(counts.activeTable(7));
    assertFalse(counts.markActiveTable(7));
    assertFalse(counts.markActiveTable(8));
    assertEquals(2, counts.count(7));
    assertArrayEquals(new long[] {7}, counts.clustersOf(ClusterUse.L2_TABLE));
  }

  @Test
  void forgetsWhatIsRemoved() throws IOException {
    ClusterCounts counts = new ClusterCounts(1);
    counts.add(7, ClusterUse.REFCOUNT_TABLE, 1);
    counts.remove(7);
    counts.remove(1 << 20); // never counted
    assertEquals(0, counts.count(7));
    assertEquals(0, counts.end());
    assertNull(counts.add(7, ClusterUse.REFCOUNT_BLOCK, 1));
  }
}
