package io.qnbd.image.snapshot;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.L1Tables;
import io.qnbd.image.metadata.SeenTables;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Before a snapshot goes: finds the clusters whose last reference that is counted goes with it, and
 * makes sure that nothing else refers to them. Where a count is too low, which an image that a
 * stranger made can be arranged to have, they would be given away under the disk or under another
 * snapshot.
 *
 * <p>The file is looked at in ranges of host clusters, so that memory is bounded however long it
 * is: the snapshot's tables are read once for each, and once those of the disk and of the other
 * snapshots. Tables are read from the file, where one that an entry names is durable before the
 * entry; guests go on meanwhile. What they come to refer to is not the snapshot's, and what they
 * cease to refer to is counted less only after that is in the file.
 *
 * <p>Owner: whoever holds the lock of those who change snapshots.
 */
final class LastReferences {
  /** 64 MiB of counters; 2 TiB with 64 KiB clusters. */
  private static final int RANGE_CLUSTERS = 1 << 25;

  /** More than any file has that is not made to keep us busy. */
  private static final int RANGES_MAX = 64;

  private final Storage file;
  private final Geometry geometry;
  private final ReentrantLock metadata;
  private final Allocator allocator;
  private final TreeWalk walk;

  LastReferences(
      Storage file, Geometry geometry, ReentrantLock metadata, Allocator allocator, TreeWalk walk) {
    this.file = file;
    this.geometry = geometry;
    this.metadata = metadata;
    this.allocator = allocator;
    this.walk = walk;
  }

  /**
   * Throws, and marks the image corrupt, if anything would be given away that is still in use.
   *
   * @param going the L1 table of the snapshot that goes
   * @param alsoGoing what is freed besides all that it refers to
   * @param staying reads those of the disk and of all other snapshots as the file has them now:
   *     what is not counted more than once any more is not in them any more, so they are read after
   *     the counts
   */
  void require(long[] going, List<HostRun> alsoGoing, L1Tables staying) throws IOException {
    long from = 0;
    for (int range = 0; from < Long.MAX_VALUE; range++) {
      if (range == RANGES_MAX) {
        throw new CorruptImageException(
            file.name() + ": a snapshot refers to clusters all over a file of no likely length");
      }
      from = requireIn(from, going, alsoGoing, staying);
    }
  }

  /** Returns where the next range begins that the snapshot refers to. */
  private long requireIn(long from, long[] going, List<HostRun> alsoGoing, L1Tables staying)
      throws IOException {
    // What lies behind the end of the file is refused when it is met.
    long clusters = Math.max(1, geometry.clustersFor(file.length()) - from);
    char[] times = new char[(int) Math.min(RANGE_CLUSTERS, clusters)];
    long[] next = {Long.MAX_VALUE};
    Count count =
        (cluster, more) -> {
          if (cluster >= from + times.length) {
            next[0] = Math.min(next[0], cluster);
          } else if (cluster >= from) {
            int index = (int) (cluster - from);
            times[index] = (char) Math.min(Character.MAX_VALUE, times[index] + more);
          }
        };
    walk.forEachTable(
        going,
        (entry, entries) -> walk.forEachReference(entry, cluster -> count.add(cluster, entries)));
    for (HostRun run : alsoGoing) {
      for (long cluster = run.first(); cluster < run.end(); cluster++) {
        count.add(cluster, 1);
      }
    }
    keepThoseThatGo(from, times);
    SeenTables seen = new SeenTables();
    TreeWalk.Reference check =
        cluster -> {
          if (cluster >= from
              && cluster < from + times.length
              && times[(int) (cluster - from)] != 0) {
            throw stillInUse(cluster);
          }
        };
    staying.forEach(
        l1 -> walk.forEachTable(l1, (entry, _) -> walk.forEachPlausible(entry, seen, check)));
    return next[0];
  }

  private void keepThoseThatGo(long from, char[] times) throws IOException {
    for (int index = 0; index < times.length; index++) {
      if (times[index] != 0) {
        metadata.lock();
        try {
          long counted = allocator.count(from + index);
          if (Long.compareUnsigned(counted, times[index]) > 0
              && times[index] < Character.MAX_VALUE) {
            times[index] = 0;
          }
        } finally {
          metadata.unlock();
        }
      }
    }
  }

  private CorruptImageException stillInUse(long cluster) {
    return allocator
        .guard()
        .found(
            String.format(
                "cluster %d (0x%x) is counted as if a snapshot alone referred to it, but the disk"
                    + " or another snapshot does too",
                cluster, geometry.offsetOf(cluster)));
  }

  private interface Count {
    void add(long cluster, int times);
  }
}
