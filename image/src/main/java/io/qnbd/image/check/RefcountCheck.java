package io.qnbd.image.check;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Counts the refcount structures themselves, then compares what they store with what was counted.
 *
 * <p>Owner: one check. Not thread-safe.
 */
final class RefcountCheck {
  /** Bits 0 to 8 of a refcount table's entry (qcow2 specification, "Refcount table entry"). */
  private static final long RESERVED_MASK = 0x1ff;

  private final ImageFile file;
  private final Header header;
  private final Geometry geometry;
  private final Findings findings;
  private final ClusterCounts counts;
  private final References references;
  private final Fixes fixes;

  /** Offsets of the blocks that can be read, 0 for others; at most 8 MiB. */
  private final long[] blocks;

  /** The block read last, for {@link #stored}. */
  private final byte[] storedBlock;

  private int storedIndex = -1;

  private long highestCluster;

  RefcountCheck(
      ImageFile file,
      Header header,
      Findings findings,
      ClusterCounts counts,
      References references,
      Fixes fixes) {
    this.fixes = fixes;
    this.file = file;
    this.header = header;
    this.geometry = header.geometry();
    this.findings = findings;
    this.counts = counts;
    this.references = references;
    this.storedBlock = new byte[geometry.clusterBytes()];
    this.blocks = new long[(int) (geometry.offsetOf(header.refcountTableClusters()) / Long.BYTES)];
  }

  /** The last cluster that is referenced or stored as used. */
  long highestCluster() {
    return highestCluster;
  }

  /** Offsets of the refcount blocks, 0 where there is none that can be read; after the count. */
  long[] blocks() {
    return blocks.clone();
  }

  void countTables() throws IOException {
    References.Place place =
        references.addAligned(
            "header",
            header.refcountTableOffset(),
            geometry.offsetOf(header.refcountTableClusters()),
            ClusterUse.REFCOUNT_TABLE,
            1);
    if (place != References.Place.GOOD) {
      fixes.newRefcounts();
    }
    ByteBuffer tablePart = ByteBuffer.allocate(geometry.clusterBytes());
    int entriesPerCluster = geometry.clusterBytes() / Long.BYTES;
    for (int index = 0; index < blocks.length; index++) {
      if (index % entriesPerCluster == 0) {
        file.read(header.refcountTableOffset() + (long) index * Long.BYTES, tablePart);
      }
      long entry = tablePart.getLong(index % entriesPerCluster * Long.BYTES);
      if (entry != 0 && usable(index, entry)) {
        blocks[index] = entry;
      } else if (entry != 0) {
        fixes.newRefcounts();
      }
    }
  }

  /** What the blocks that can be read say of a cluster. */
  long stored(long cluster) throws IOException {
    int index = blockOf(cluster);
    if (index < 0) {
      return 0;
    }
    read(index);
    int entry = (int) (cluster % geometry.refcountBlockEntries());
    return RefcountEntries.get(storedBlock, geometry.refcountOrder(), entry);
  }

  /** The first cluster from {@code from} on, before {@code end}, that they count as used. */
  long nextStored(long from, long end) throws IOException {
    long perBlock = geometry.refcountBlockEntries();
    for (long at = from; at < end; ) {
      if (blockOf(at) < 0) {
        at = Math.min(end, (at / perBlock + 1) * perBlock);
      } else if (stored(at) != 0) {
        return at;
      } else {
        at++;
      }
    }
    return end;
  }

  /** The table's index of the block that counts the cluster; -1 when there is none. */
  private int blockOf(long cluster) {
    long index = cluster / geometry.refcountBlockEntries();
    return index < blocks.length && blocks[(int) index] != 0 ? (int) index : -1;
  }

  private void read(int index) throws IOException {
    if (storedIndex != index) {
      file.read(blocks[index], ByteBuffer.wrap(storedBlock));
      storedIndex = index;
    }
  }

  private boolean usable(int index, long entry) throws IOException {
    String here = "refcount table, entry " + index;
    if ((entry & RESERVED_MASK) != 0) {
      findings.corruption("%s: 0x%016x has reserved bits set", here, entry);
      return false;
    }
    return references.addAligned(here, entry, geometry.clusterBytes(), ClusterUse.REFCOUNT_BLOCK, 1)
        == References.Place.GOOD;
  }

  /** Compares each cluster of the file, and each that is referenced; all was counted before. */
  void compare() throws IOException {
    long end = Math.max(geometry.clustersFor(file.fileBytes()), counts.end());
    long perBlock = geometry.refcountBlockEntries();
    byte[] block = new byte[geometry.clusterBytes()];
    long first = 0;
    for (int index = 0; index < blocks.length && first < end; index++) {
      long blockEnd = Math.min(first + perBlock, end);
      if (blocks[index] == 0) {
        compareUncounted(first, blockEnd);
      } else {
        file.read(blocks[index], ByteBuffer.wrap(block));
        for (long cluster = first; cluster < blockEnd; cluster++) {
          int entry = (int) (cluster - first);
          compare(cluster, RefcountEntries.get(block, geometry.refcountOrder(), entry));
        }
      }
      first += perBlock;
    }
    compareUncounted(first, end);
  }

  /** Clusters without a refcount block have a stored refcount of 0. */
  private void compareUncounted(long from, long end) {
    long cluster = counts.nextReferenced(from, end);
    while (cluster < end) {
      compare(cluster, 0);
      cluster = counts.nextReferenced(cluster + 1, end);
    }
  }

  private void compare(long cluster, long stored) {
    int counted = counts.count(cluster);
    if (stored == 0 && counted == 0) {
      return;
    }
    highestCluster = cluster;
    if (stored == 1) {
      counts.markStoredOne(cluster);
    }
    int order = Long.compareUnsigned(stored, counted);
    if (order == 0) {
      return;
    }
    String format = "cluster %d (0x%x): the refcount is %s, the references are %d";
    String storedText = Long.toUnsignedString(stored);
    if (order < 0) {
      findings.corruption(format, cluster, geometry.offsetOf(cluster), storedText, counted);
    } else {
      findings.leak(format, cluster, geometry.offsetOf(cluster), storedText, counted);
    }
  }
}
