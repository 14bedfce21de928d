package io.qnbd.image.disk;

import io.qnbd.image.Compaction;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Moves what stands at the end of an image's file into free clusters further to the front, gives
 * the space of free clusters back to the host, and cuts the file off behind the last one in use;
 * also while guests go on.
 *
 * <p>The file could end after as many clusters as are in use: what lies behind that is moved, if it
 * can be, to the lowest free clusters before it.
 *
 * <pre>
 *   data      its guest range is held exclusively: the bytes are copied, the entry is set in
 *             memory, the old cluster is released: from there on all is as with a guest's write
 *   L2 table  copied whole with what is pending, the L1 entry set in memory, the old one released,
 *             as with a table that a snapshot shares
 *   refcount  block: the copy is durable before the table's entry names it; table: before the
 *             header does. The old one is released, through a commit
 *   L1 table  the copy is durable before the header names it; likewise
 *   snapshot table   replaced, as for a new snapshot
 * </pre>
 *
 * <p>So a power cut at any moment leaves each of them where it was or where it went, and leaks at
 * most. What snapshots share, their L1 tables, bitmaps and compressed clusters stay where they are.
 *
 * <p>All of it rests on the counts, so the tables are looked through before: nothing that the disk
 * or a snapshot refers to may be counted as free.
 *
 * <p>One at a time, and none while snapshots or the size change: the caller sees to that.
 */
final class Compacting {
  /** Free clusters are looked for and punched in steps, between which guests go on. */
  private static final int PUNCH_CLUSTERS_STEP = 1 << 14;

  private static final int PASSES_MAX = 4;

  private final Layers layers;
  private final RangeLock clusters;
  private final Growth growth;
  private final Growth.Step requireSnapshotsCounted;
  private final Growth.Step flush;
  private final Growth.Step afterChange;
  private final ProgressListener progress;
  private long moved;

  /** Where the file could end, in clusters. */
  private long target;

  Compacting(
      Layers layers,
      RangeLock clusters,
      Growth growth,
      Growth.Step requireSnapshotsCounted,
      Growth.Step flush,
      Growth.Step afterChange,
      ProgressListener progress) {
    this.layers = layers;
    this.clusters = clusters;
    this.growth = growth;
    this.requireSnapshotsCounted = requireSnapshotsCounted;
    this.flush = flush;
    this.afterChange = afterChange;
    this.progress = progress;
  }

  /** Compacts the image. */
  Compaction run(long virtualBytes) throws IOException {
    requireCounted();
    long oldFileBytes = layers.file().length();
    for (int pass = 0; pass < PASSES_MAX; pass++) {
      settle();
      target = usedClusters();
      long before = moved;
      moveMetadata(virtualBytes);
      moveTables();
      if (moved == before) {
        break;
      }
    }
    settle();
    target = usedClusters();
    punchFree();
    long stayed = cutOff();
    return new Compaction(oldFileBytes, layers.file().length(), moved, stayed);
  }

  private void requireCounted() throws IOException {
    for (int index = 0; index < layers.map().l1Entries(); index++) {
      layers.metadata().lock();
      try {
        layers.map().requireSound(index);
      } finally {
        layers.metadata().unlock();
      }
    }
    requireSnapshotsCounted.run();
  }

  /** Commits, and writes everything as free that is kept ready for guests. */
  private void settle() throws IOException {
    flush.run(); // what was released before is free after this
    layers.metadata().lock();
    try {
      layers.allocator().drain();
      layers.allocator().writeRefcounts();
    } finally {
      layers.metadata().unlock();
    }
  }

  private long fileClusters() throws IOException {
    return layers.geometry().clustersFor(layers.file().length());
  }

  private long usedClusters() throws IOException {
    return used(0, fileClusters());
  }

  private long used(long from, long end) throws IOException {
    long used = 0;
    for (long first = from; first < end; first += PUNCH_CLUSTERS_STEP) {
      layers.metadata().lock();
      try {
        for (long at = first; at < Math.min(end, first + PUNCH_CLUSTERS_STEP); at++) {
          used += layers.allocator().inUse(at) ? 1 : 0;
        }
      } finally {
        layers.metadata().unlock();
      }
    }
    return used;
  }

  // ---- data and L2 tables

  private void moveTables() throws IOException {
    int tables = layers.map().l1Entries();
    for (int index = 0; index < tables; index++) {
      long first = (long) index * layers.geometry().l2Entries();
      if (!moveTable(index)) {
        continue;
      }
      moveData(first, layers.geometry().l2Entries());
      progress.progress("moving clusters", index + 1, tables);
    }
  }

  /** Returns whether the table is there and may be changed. */
  private boolean moveTable(int index) throws IOException {
    ClusterMap map = layers.map();
    boolean movedOne = false;
    layers.metadata().lock();
    try {
      long table = map.soleTable(index);
      if (table == 0) {
        return false;
      }
      if (layers.geometry().clusterOf(table) >= target) {
        HostRun run = layers.allocator().allocateBelow(1, target);
        if (run != null) {
          map.moveTable(index, run);
          moved++;
          movedOne = true;
        }
      }
    } finally {
      layers.metadata().unlock();
    }
    if (movedOne) {
      afterChange.run();
    }
    return true;
  }

  private void moveData(long first, int count) throws IOException {
    Geometry geometry = layers.geometry();
    // At most so much at a time, which bounds how long a guest waits for its range.
    int piece = layers.scratch().assembledBytes() >> geometry.clusterBits();
    for (long cluster = first; cluster < first + count; ) {
      cluster = nextToMove(cluster, first + count);
      if (cluster == first + count) {
        return;
      }
      long last = Math.min(cluster + piece, first + count) - 1;
      RangeLock.Hold hold = clusters.acquire(cluster, last, true);
      try {
        cluster += moveRun(cluster, last - cluster + 1);
      } finally {
        clusters.release(hold);
      }
      afterChange.run();
    }
  }

  /** The first cluster from there on that ought to move. A guess: no range is held. */
  private long nextToMove(long cluster, long end) throws IOException {
    layers.metadata().lock();
    try {
      return layers.map().nextBehind(cluster, end, target);
    } finally {
      layers.metadata().unlock();
    }
  }

  /** Moves what begins with the cluster; returns how many clusters it went over. */
  private long moveRun(long cluster, long max) throws IOException {
    long host;
    HostRun run;
    layers.metadata().lock();
    try {
      long count = layers.map().soleRun(cluster, max, target);
      if (count == 0) {
        return 1;
      }
      host = layers.map().hostOffset(cluster);
      @Nullable HostRun lower = layers.allocator().allocateBelow((int) count, target);
      if (lower == null) {
        return max;
      }
      run = lower;
    } finally {
      layers.metadata().unlock();
    }
    boolean done = false;
    try {
      copy(host, run);
      layers.metadata().lock();
      try {
        layers.map().relocate(cluster, run);
      } finally {
        layers.metadata().unlock();
      }
      done = true;
    } finally {
      if (!done) {
        giveBack(run);
      }
    }
    moved += run.count();
    return run.count();
  }

  private void giveBack(HostRun run) {
    layers.metadata().lock();
    try {
      layers.allocator().giveBack(run);
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * Holes stay holes; but what is encrypted by its place in the file is so by its new place, and
   * then a hole is no zeroes. Subclusters that the guest has not got are copied with the others.
   */
  private void copy(long from, HostRun run) throws IOException {
    Geometry geometry = layers.geometry();
    long to = geometry.offsetOf(run.first());
    int bytes = (int) geometry.offsetOf(run.count());
    boolean plain = layers.cryptMethod() == Header.CRYPT_NONE;
    if (plain && layers.file().isHole(from, bytes)) {
      layers.file().punchHole(to, bytes);
      return;
    }
    ByteBuffer buffer = layers.scratch().assembled().limit(bytes);
    layers.data().read(from, buffer);
    Zeroes.fill(buffer, buffer.remaining()); // the file may end inside its last cluster
    layers.data().write(to, buffer.flip());
  }

  // ---- other metadata

  private void moveMetadata(long virtualBytes) throws IOException {
    layers.metadata().lock();
    try {
      moveL1(virtualBytes);
      layers.directory().moveBelow(target, layers.allocator());
      moved += layers.allocator().moveRefcountsBelow(target);
    } finally {
      layers.metadata().unlock();
    }
  }

  private void moveL1(long virtualBytes) throws IOException {
    ClusterMap map = layers.map();
    Geometry geometry = layers.geometry();
    int count = (int) geometry.clustersFor((long) map.l1Entries() * L1Entry.BYTES);
    if (count == 0 || geometry.clusterOf(map.l1Offset()) + count <= target) {
      return;
    }
    @Nullable HostRun run = layers.allocator().allocateContiguousBelow(count, target);
    if (run != null) {
      growth.moveL1(run, map.l1(), virtualBytes);
      moved += count;
    }
  }

  // ---- giving back

  /** Nobody can be handed a cluster while the lock is held, and nothing refers to a free one. */
  private void punchFree() throws IOException {
    Geometry geometry = layers.geometry();
    long end = fileClusters();
    for (long first = 1; first < end; first += PUNCH_CLUSTERS_STEP) {
      layers.metadata().lock();
      try {
        long last = Math.min(end, first + PUNCH_CLUSTERS_STEP);
        for (long at = first; at < last; ) {
          long free = at;
          while (free < last && !layers.allocator().inUse(free)) {
            free++;
          }
          long bytes = geometry.offsetOf(free - at);
          layers.allocator().guard().requireFree("cluster counted as free", at, free - at);
          if (free > at && !layers.file().isHole(geometry.offsetOf(at), bytes)) {
            layers.file().punchHole(geometry.offsetOf(at), bytes);
          }
          at = Math.max(free, at) + 1;
        }
      } finally {
        layers.metadata().unlock();
      }
      progress.progress("giving space back", Math.min(end, first + PUNCH_CLUSTERS_STEP), end);
    }
  }

  /** Returns how many clusters in use lie where none need be. */
  private long cutOff() throws IOException {
    layers.metadata().lock();
    try {
      long end = layers.allocator().usedEnd(layers.file().length());
      if (end < layers.file().length()) {
        layers.file().setLength(end);
      }
      layers.file().sync();
    } finally {
      layers.metadata().unlock();
    }
    return used(target, fileClusters());
  }
}
