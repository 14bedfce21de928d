package io.qnbd.image.refcount;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.NavigableSet;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The allocator against a plain set of who owns which cluster. */
final class AllocatorTest {
  private static final int CLUSTER_BYTES = 512;
  private static final int TABLE_CLUSTER = 1;
  private static final int BLOCK_CLUSTER = 2;
  private static final int METADATA_CLUSTERS = 3;

  private final MemoryStorage file = new MemoryStorage();
  private final Geometry geometry = new Geometry(9, 4);
  private final Barrier barrier = new Barrier();
  private long tableOffset = TABLE_CLUSTER * CLUSTER_BYTES;
  private int tableClusters = 1;

  private Allocator allocator(int reserveMax) throws IOException {
    byte[] block = new byte[CLUSTER_BYTES];
    for (int cluster = 0; cluster < METADATA_CLUSTERS; cluster++) {
      RefcountEntries.set(block, 4, cluster, 1);
    }
    file.setLength(METADATA_CLUSTERS * CLUSTER_BYTES);
    file.write(BLOCK_CLUSTER * CLUSTER_BYTES, ByteBuffer.wrap(block));
    long[] table = new long[CLUSTER_BYTES / Long.BYTES];
    table[0] = BLOCK_CLUSTER * CLUSTER_BYTES;
    ByteBuffer bytes = ByteBuffer.allocate(CLUSTER_BYTES).putLong(table[0]).clear();
    file.write(tableOffset, bytes);
    RefcountBlocks blocks = new RefcountBlocks(file, geometry, tableOffset, table);
    RefcountBlocks.HeaderFields header =
        (offset, clusters) -> {
          tableOffset = offset;
          tableClusters = clusters;
        };
    return new Allocator(
        file, geometry, blocks, header, barrier, reserveMax, false, Guard.ofReader("disk"));
  }

  /** The count that the file, not any cache, has for a cluster. */
  private long countInFile(long cluster) throws IOException {
    long perBlock = geometry.refcountBlockEntries();
    if (cluster / perBlock >= (long) tableClusters * CLUSTER_BYTES / Long.BYTES) {
      return 0;
    }
    ByteBuffer entry = ByteBuffer.allocate(Long.BYTES);
    file.read(tableOffset + cluster / perBlock * Long.BYTES, entry);
    long at = entry.flip().getLong();
    if (at == 0) {
      return 0;
    }
    byte[] block = new byte[CLUSTER_BYTES];
    file.read(at, ByteBuffer.wrap(block));
    return RefcountEntries.get(block, 4, (int) (cluster % perBlock));
  }

  private void commit(Allocator allocator) throws IOException {
    List<HostRun> unused = allocator.apply(allocator.takeReleased());
    allocator.syncCompleted();
    for (HostRun run : unused) {
      allocator.makeAvailable(run, true);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 7, 1024})
  void neverHandsOutAClusterTwiceAndForgetsNone(int reserveMax) {
    Seeds.run(
        "AllocatorTest " + reserveMax,
        4,
        seed -> new AllocatorTest().runModel(reserveMax, new SeededRandom(seed)));
  }

  private void runModel(int reserveMax, SeededRandom random) throws IOException {
    Allocator allocator = allocator(reserveMax);
    TreeSet<Long> owned = new TreeSet<>();
    Set<Long> releasing = new HashSet<>();
    for (int step = 0; step < 4000; step++) {
      switch (random.below(8)) {
        case 0, 1, 2, 3 -> {
          int wanted = random.between(1, 40);
          HostRun run = allocator.allocate(wanted);
          assertTrue(run.count() <= wanted, () -> "more than wanted: " + run);
          for (long cluster = run.first(); cluster < run.end(); cluster++) {
            long handed = cluster;
            assertTrue(owned.add(cluster), () -> "handed out while in use: " + handed);
            assertTrue(!releasing.contains(cluster), () -> "out of quarantine: " + handed);
            assertEquals(1, countInFile(cluster), "count in the file");
            assertTrue(geometry.offsetOf(cluster) < file.length(), "past the end of the file");
          }
          if (random.chance(10)) {
            allocator.giveBack(run);
            for (long cluster = run.first(); cluster < run.end(); cluster++) {
              owned.remove(cluster);
            }
          }
        }
        case 4, 5, 6 -> releaseSome(allocator, random, owned, releasing);
        default -> {
          commit(allocator);
          releasing.clear();
        }
      }
    }
    commit(allocator);
    endsWithExactCounts(allocator, owned);
  }

  private static void releaseSome(
      Allocator allocator, SeededRandom random, NavigableSet<Long> owned, Set<Long> releasing) {
    int count = random.between(0, 60);
    for (int i = 0; i < count && !owned.isEmpty(); i++) {
      Long cluster = owned.ceiling(random.below(owned.last() + 1));
      owned.remove(cluster);
      releasing.add(cluster);
      allocator.release(cluster);
    }
  }

  /** After a drain only owned clusters, and the tables that count them, are counted. */
  private void endsWithExactCounts(Allocator allocator, Set<Long> owned) throws IOException {
    allocator.drain();
    allocator.writeRefcounts();
    long end = geometry.clustersFor(file.length());
    List<Long> others = new ArrayList<>();
    for (long cluster = 0; cluster < end; cluster++) {
      long count = countInFile(cluster);
      if (owned.contains(cluster)) {
        assertEquals(1, count, "count of " + cluster);
      } else if (count != 0) {
        others.add(cluster);
      }
    }
    Set<Long> tables = new TreeSet<>();
    tables.add(0L);
    for (int i = 0; i < tableClusters; i++) {
      tables.add(geometry.clusterOf(tableOffset) + i);
    }
    ByteBuffer table = ByteBuffer.allocate(tableClusters * CLUSTER_BYTES);
    file.read(tableOffset, table);
    table.flip();
    while (table.hasRemaining()) {
      long block = table.getLong();
      if (block != 0) {
        tables.add(geometry.clusterOf(block));
      }
    }
    assertEquals(new ArrayList<>(tables), others);
  }

  @Test
  void growsTheRefcountTable() throws IOException {
    Allocator allocator = allocator(1024);
    Set<Long> owned = new TreeSet<>();
    while (owned.size() < 40_000) { // one table cluster counts 16,384
      HostRun run = allocator.allocate(100);
      for (long cluster = run.first(); cluster < run.end(); cluster++) {
        assertTrue(owned.add(cluster));
      }
    }
    assertTrue(tableClusters > 1);
    commit(allocator);
    endsWithExactCounts(allocator, owned);
  }

  @Test
  void findsAFreedHoleAgainBehindALargerAllocation() throws IOException {
    Allocator allocator = allocator(1024);
    allocator.allocate(1);
    HostRun hole = allocator.allocate(1);
    allocator.allocate(1);
    allocator.release(hole.first());
    commit(allocator);
    allocator.allocate(2);
    assertEquals(hole.first(), allocator.allocate(1).first());
  }

  /** One block counts 256 clusters: a longer row must not break on the blocks that count it. */
  @ParameterizedTest
  @ValueSource(ints = {1, 255, 256, 257, 1000, 20_000})
  void allocatesTablesInARow(int count) throws IOException {
    Allocator allocator = allocator(16);
    Set<Long> owned = new TreeSet<>();
    allocator.allocate(7); // something in the way
    for (int round = 0; round < 2; round++) {
      HostRun run = allocator.allocateContiguous(count);
      assertEquals(count, run.count());
      for (long cluster = run.first(); cluster < run.end(); cluster++) {
        assertTrue(owned.add(cluster), "handed out twice");
        assertEquals(1, countInFile(cluster), "count in the file");
      }
    }
    // A longer refcount table may stand in the way once; the hole before it is for later.
    long bytes = 2L * count * CLUSTER_BYTES;
    assertTrue(file.length() < 3 * bytes + (1 << 20), "length " + file.length());
    allocator.drain();
    allocator.writeRefcounts();
  }

  @Test
  void coalescesReferencesToOneCluster() throws IOException {
    Allocator allocator = allocator(0);
    HostRun run = allocator.allocate(1);
    allocator.release(run.first());
    List<HostRun> unused = allocator.apply(allocator.takeReleased());
    assertEquals(List.of(run.first()), unused.stream().map(HostRun::first).toList());
    // A second release of a cluster that has one reference is damage from outside.
    allocator.release(run.first());
    allocator.release(run.first());
    assertThrows(CorruptImageException.class, () -> allocator.apply(allocator.takeReleased()));
  }

  @Test
  void aRunIsFreshOnceASyncFollowedItsHole() throws IOException {
    Allocator allocator = allocator(0);
    HostRun beyondTheEnd = allocator.allocate(1);
    assertTrue(allocator.fresh(beyondTheEnd));
    allocator.giveBack(beyondTheEnd);
    HostRun written = allocator.allocate(1);
    assertEquals(beyondTheEnd.first(), written.first());
    assertTrue(!allocator.fresh(written), "may have been written to");
    allocator.release(written.first());
    commit(allocator);
    HostRun punched = allocator.allocate(1);
    assertEquals(written.first(), punched.first());
    assertTrue(!allocator.fresh(punched), "the hole is not durable yet");
    allocator.syncCompleted();
    assertTrue(allocator.fresh(punched));
  }
}
