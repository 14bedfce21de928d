package io.qnbd.image.disk;

import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import java.io.IOException;
import java.util.Arrays;

/**
 * Makes the disk of an image smaller.
 *
 * <pre>
 *   1. size  the header has the new one                                durable before
 *   2. trim  what lies behind the new end is unmapped, whole L2 tables with their L1 entries;
 *            a commit makes it durable and gives the clusters back     durable before
 *   3. L1    the header names the shorter table                        durable before
 *            the clusters that it has no more use for are released
 *   4. data  an external data file is cut off at the new end
 * </pre>
 *
 * <p>So a power cut leaves the old disk whole or the new one. What it may leave behind the new
 * one's end no guest can see; growing clears it, and shrinking to the same size gives it back.
 *
 * <p>The caller holds all guest clusters exclusively, and nothing changes the snapshots.
 */
final class Shrinking {
  private final Layers layers;
  private final ZeroWriter zeroes;
  private final Growth growth;
  private final Growth.Step flush;
  private final Growth.Step afterChange;

  /**
   * A shrinking of the image that the layers are of.
   *
   * @param flush commits and waits for it
   * @param afterChange keeps what waits for a commit within its bounds
   */
  Shrinking(
      Layers layers, ZeroWriter zeroes, Growth growth, Growth.Step flush, Growth.Step afterChange) {
    this.layers = layers;
    this.zeroes = zeroes;
    this.growth = growth;
    this.flush = flush;
    this.afterChange = afterChange;
  }

  /** Throws unless the disk may shrink to {@code bytes}. */
  void check(long bytes) throws IOException {
    if (bytes < 0 || bytes % 512 != 0) {
      throw new UnsupportedImageException(
          "%s: its disk can't shrink to %d bytes, which is no multiple of 512"
              .formatted(layers.file().name(), bytes));
    }
    growth.requireSizesOfSnapshots("shrink");
  }

  void shrink(long oldBytes, long bytes) throws IOException {
    flush.run();
    growth.setSize(oldBytes, bytes);
    trim(bytes);
    flush.run();
    if (shortenL1(bytes)) {
      flush.run();
    }
    DataFile dataFile = layers.dataFile();
    if (dataFile != null) {
      dataFile.cutOff(bytes);
      layers.syncDataFile();
    }
  }

  /** Says whether the table had entries that a disk of so many bytes has no use for. */
  private boolean shortenL1(long bytes) throws IOException {
    layers.metadata().lock();
    try {
      ClusterMap map = layers.map();
      int oldEntries = map.l1Entries();
      int entries = Math.min(oldEntries, Math.max(1, l1EntriesFor(bytes)));
      if (entries == oldEntries) {
        return false;
      }
      growth.writeHeader(bytes, bytes, entries, map.l1Offset());
      map.replaceL1(map.l1Offset(), Arrays.copyOf(map.l1(), entries));
      releaseL1Tail(map.l1Offset(), entries, oldEntries);
      return true;
    } finally {
      layers.metadata().unlock();
    }
  }

  private int l1EntriesFor(long bytes) {
    return (int)
        HeaderRules.l1EntriesFor(
            bytes, layers.geometry().clusterBits(), layers.geometry().extendedL2());
  }

  private void releaseL1Tail(long l1Offset, int entries, int oldEntries) {
    Geometry geometry = layers.geometry();
    long first = geometry.clusterOf(l1Offset);
    long kept = geometry.clustersFor((long) entries * L1Entry.BYTES);
    long had = geometry.clustersFor((long) oldEntries * L1Entry.BYTES);
    layers.allocator().guard().forget(first + kept, had - kept);
    for (long i = kept; i < had; i++) {
      layers.allocator().release(first + i);
    }
  }

  /** Whatever is mapped there, also by L1 entries that the disk had no use for. */
  private void trim(long bytes) throws IOException {
    Geometry geometry = layers.geometry();
    long first = geometry.clustersFor(bytes);
    int keptTables = l1EntriesFor(bytes);
    long end = (long) keptTables * geometry.l2Entries();
    if (first < end) {
      zeroes.drop(first, end - first, Dropped.UNMAPPED);
      afterChange.run();
    }
    for (int index = keptTables; index < layers.map().l1Entries(); index++) {
      layers.metadata().lock();
      try {
        layers.map().dropTable(index);
      } finally {
        layers.metadata().unlock();
      }
      afterChange.run();
    }
  }
}
