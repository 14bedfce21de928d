package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.GrowRules;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * Grows the disk of an image that is in use.
 *
 * <pre>
 *   1. L1 table  a longer copy, if the old one is too short   durable before
 *                the header names it                          durable before
 *                the old table's clusters are released, like a guest's, through a commit
 *   2. clear     what the tables or the backing file have behind the old end reads as zeroes
 *   3. the rest  of the old last cluster too                  2 and 3 are durable before
 *   4. size      the header has the new one                   durable before anybody is told
 * </pre>
 *
 * <p>A power cut after 1 leaves an L1 table that is longer than the disk needs, one after 2 or 3
 * zeroes where no guest can look; the next attempt goes on from there.
 *
 * <p>The longer L1 table may name L2 tables that no commit has published yet. That is no harm: its
 * own sync makes durable that they read as zeroes or as the tables that they replace, which is all
 * that a commit asks of them before it writes their L1 entries. A commit under way meanwhile writes
 * its L1 entries into the old table; they are in the new one already, and the old clusters have no
 * other use before the commit after it.
 *
 * <p>Requests go on, but for those to the old last cluster during 3 and 4. One growth at a time,
 * and none while snapshots change: the caller sees to that.
 */
final class Growth {
  /** Something to do that may fail. */
  interface Step {
    void run() throws IOException;
  }

  /** L2 entries that are cleared under one hold of the metadata lock. */
  private static final int CLEAR_CLUSTERS_MAX = 1 << 16;

  private final Layers layers;
  private final RangeLock clusters;
  private final GuestReader reader;
  private final GuestWriter writer;
  private final ZeroWriter zeroes;
  private final Step flush;
  private final Step afterChange;

  /**
   * A growth of the image that the layers are of.
   *
   * @param clusters the locks of its guest clusters
   * @param flush commits and waits for it
   * @param afterChange keeps what waits for a commit within its bounds
   */
  Growth(
      Layers layers,
      RangeLock clusters,
      GuestReader reader,
      GuestWriter writer,
      ZeroWriter zeroes,
      Step flush,
      Step afterChange) {
    this.layers = layers;
    this.clusters = clusters;
    this.reader = reader;
    this.writer = writer;
    this.zeroes = zeroes;
    this.flush = flush;
    this.afterChange = afterChange;
  }

  /** Throws unless the disk may grow from {@code oldBytes} to {@code bytes}. */
  void check(long oldBytes, long bytes) throws IOException {
    String name = layers.file().name();
    GrowRules.check(name, oldBytes, bytes);
    Geometry geometry = layers.geometry();
    if (l1EntriesFor(bytes) > HeaderRules.L1_ENTRIES_MAX) {
      throw new UnsupportedImageException(
          "%s: its disk can't grow to %d bytes: with clusters of %d bytes the most are %d"
              .formatted(
                  name,
                  bytes,
                  geometry.clusterBytes(),
                  HeaderRules.L1_ENTRIES_MAX * geometry.l2CoverageBytes()));
    }
    if (bytes == oldBytes) {
      return;
    }
    requireSizesOfSnapshots("grow");
    DiskImage backing = layers.backing();
    long oldEnd = geometry.offsetOf(geometry.clustersFor(oldBytes));
    if (!layers.zeroFlagKnown()
        && backing != null
        && backing.virtualBytes() > oldEnd
        && bytes > oldEnd) {
      throw new UnsupportedImageException(
          name
              + ": its backing file is longer than its disk and would be seen if it grew, which"
              + " version 2 of the format can't prevent: convert it to version 3");
    }
  }

  /** A snapshot that doesn't say how long its disk is would take on the new size. */
  void requireSizesOfSnapshots(String what) throws IOException {
    layers.metadata().lock();
    try {
      for (SnapshotEntry snapshot : layers.directory().entries()) {
        // QEMU believes no version 2 image to say it.
        if (!layers.zeroFlagKnown() || snapshot.virtualBytes().isEmpty()) {
          throw new UnsupportedImageException(
              "%s: its disk can't %s because the snapshot %s does not record its own size"
                  .formatted(layers.file().name(), what, snapshot.nameText()));
        }
      }
    } finally {
      layers.metadata().unlock();
    }
  }

  private long l1EntriesFor(long bytes) {
    return HeaderRules.l1EntriesFor(
        bytes, layers.geometry().clusterBits(), layers.geometry().extendedL2());
  }

  /**
   * Grows the disk, for which {@link #check} has found nothing. If this fails the disk keeps its
   * size.
   *
   * @param publish told when the new size is durable, before anyone can reach the old last cluster
   */
  void grow(long oldBytes, long bytes, Runnable publish) throws IOException {
    growL1((int) l1EntriesFor(bytes), oldBytes);
    clear(oldBytes, bytes);
    flush.run();
    Geometry geometry = layers.geometry();
    if (geometry.inCluster(oldBytes) == 0) {
      growDataFile(oldBytes, bytes);
      setSize(oldBytes, bytes);
      publish.run();
      return;
    }
    long last = geometry.clusterOf(oldBytes);
    // Held to the end: whoever zeroes or trims up to the disk's end takes what follows along.
    RangeLock.Hold hold = clusters.acquire(last, last, true);
    try {
      if (clearRest(oldBytes)) {
        flush.run();
      }
      growDataFile(oldBytes, bytes);
      setSize(oldBytes, bytes);
      publish.run();
    } finally {
      clusters.release(hold);
    }
  }

  /**
   * Durable, so that a raw data file is no shorter than the disk and reads as it at any moment. A
   * block device, and what a power cut has kept from being cut off, is longer.
   */
  private void growDataFile(long oldBytes, long bytes) throws IOException {
    DataFile dataFile = layers.dataFile();
    if (dataFile == null) {
      return;
    }
    long known = Math.min(dataFile.storage().length(), bytes);
    if (dataFile.raw() && known > oldBytes) {
      dataFile.storage().punchHole(oldBytes, known - oldBytes);
    }
    if (dataFile.storage().length() < bytes) {
      dataFile.storage().setLength(bytes);
    }
    layers.syncDataFile();
  }

  private void growL1(int entries, long virtualBytes) throws IOException {
    layers.metadata().lock();
    try {
      ClusterMap map = layers.map();
      if (entries <= map.l1Entries()) {
        return;
      }
      long[] longer = Arrays.copyOf(map.l1(), entries);
      moveL1(layers.allocator().allocateContiguous(l1Clusters(entries)), longer, virtualBytes);
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * Puts the L1 table, which may have become longer, into {@code run}; the metadata lock is held.
   */
  void moveL1(HostRun run, long[] table, long virtualBytes) throws IOException {
    ClusterMap map = layers.map();
    long offset = layers.geometry().offsetOf(run.first());
    boolean durable = false;
    try {
      TableIo.write(layers.file(), offset, table, 0, table.length);
      layers.syncFile();
      durable = true;
    } finally {
      if (!durable) {
        layers.allocator().giveBack(run);
      }
    }
    layers.allocator().guard().note(MetadataUse.L1_TABLE, run.first(), run.count());
    boolean named = false;
    try {
      writeHeader(virtualBytes, virtualBytes, table.length, offset);
      named = true;
    } finally {
      if (!named) {
        release(offset, table.length); // not before a commit: the header may name it until then
      }
    }
    long oldOffset = map.l1Offset();
    int oldEntries = map.l1Entries();
    map.replaceL1(offset, table);
    release(oldOffset, oldEntries);
  }

  private int l1Clusters(int entries) {
    return (int) layers.geometry().clustersFor((long) entries * L1Entry.BYTES);
  }

  private void release(long l1Offset, int entries) {
    long first = layers.geometry().clusterOf(l1Offset);
    layers.allocator().guard().forget(first, l1Clusters(entries));
    for (int i = 0; i < l1Clusters(entries); i++) {
      layers.allocator().release(first + i);
    }
  }

  void setSize(long oldBytes, long bytes) throws IOException {
    layers.metadata().lock();
    try {
      writeHeader(oldBytes, bytes, layers.map().l1Entries(), layers.map().l1Offset());
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * Writes size and L1 table, which stand in one sector, and syncs. A write that failed may have
   * taken place all the same; then the old fields are written again, and if that fails too, nobody
   * knows which table the file has, and nothing more is written to it.
   */
  void writeHeader(long oldBytes, long bytes, int l1Entries, long l1Offset) throws IOException {
    try {
      writeFields(bytes, l1Entries, l1Offset);
    } catch (IOException e) {
      try {
        writeFields(oldBytes, layers.map().l1Entries(), layers.map().l1Offset());
      } catch (IOException again) {
        e.addSuppressed(again);
        layers.file().giveUp(String.valueOf(again.getMessage()));
      }
      throw e;
    }
    layers.syncFile();
  }

  private void writeFields(long bytes, int l1Entries, long l1Offset) throws IOException {
    ByteBuffer fields =
        ByteBuffer.allocate(2 * Long.BYTES + 2 * Integer.BYTES)
            .putLong(bytes)
            .putInt(layers.cryptMethod())
            .putInt(l1Entries)
            .putLong(l1Offset)
            .flip();
    layers.file().write(HeaderLayout.VIRTUAL_BYTES_AT, fields);
  }

  /** Makes all whole clusters behind the old end read as zeroes, in memory. */
  private void clear(long oldBytes, long bytes) throws IOException {
    Geometry geometry = layers.geometry();
    DiskImage backing = layers.backing();
    long backingEnd = backing == null ? 0 : geometry.clustersFor(backing.virtualBytes());
    long end = geometry.clustersFor(bytes);
    for (long cluster = geometry.clustersFor(oldBytes); cluster < end; ) {
      long max = Math.min(end - cluster, CLEAR_CLUSTERS_MAX);
      boolean covered = cluster < backingEnd;
      if (covered) {
        max = Math.min(max, backingEnd - cluster);
      }
      long count = layers.map().clustersInTable(cluster, max);
      RangeLock.Hold hold = clusters.acquire(cluster, cluster + count - 1, true);
      try {
        if (covered || !readsAsZeroes(cluster, count)) {
          // Zeroes that are marked need no look at what lies below, now or in another chain.
          zeroes.drop(cluster, count, covered ? Dropped.MARKED : Dropped.UNMAPPED);
        }
      } finally {
        clusters.release(hold);
      }
      afterChange.run();
      cluster += count;
    }
  }

  /** Clusters of one L2 table: other software may have left something behind the disk's end. */
  private boolean readsAsZeroes(long cluster, long count) throws IOException {
    layers.metadata().lock();
    try {
      ClusterMap map = layers.map();
      if (map.tableMissing(cluster)) {
        return true;
      }
      for (long i = 0; i < count; i++) {
        if (!map.readsAsZeroes(cluster + i)) {
          return false;
        }
      }
      return true;
    } finally {
      layers.metadata().unlock();
    }
  }

  /**
   * Makes what follows {@code oldBytes} in its cluster, which is held exclusively, read as zeroes:
   * a longer backing file shows there, and a disk that was shrunk may have left something.
   *
   * @return whether anything was written
   */
  private boolean clearRest(long oldBytes) throws IOException {
    Geometry geometry = layers.geometry();
    long end = geometry.offsetOf(geometry.clustersFor(oldBytes));
    boolean written = false;
    for (long at = oldBytes; at < end; ) {
      int bytes = (int) Math.min(end - at, Zeroes.blockBytes());
      ByteBuffer found = ByteBuffer.allocate(bytes);
      reader.read(at, found);
      if (!Zeroes.all(found, 0, bytes)) {
        writer.write(at, Zeroes.buffer(bytes));
        written = true;
      }
      at += bytes;
    }
    return written;
  }
}
