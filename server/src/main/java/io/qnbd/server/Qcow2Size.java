package io.qnbd.server;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import java.io.IOException;

/**
 * How large a qcow2 file becomes, by the layout of the format: a header, all L1 and L2 tables, and
 * the reference counts of all of it.
 */
final class Qcow2Size {
  /** Both sides of the format have the limit: 32 MiB of L1 table. */
  private static final long L1_BYTES_MAX = 32L << 20;

  private static final int ENTRY_BYTES = 8;

  private final long clusterBytes;
  private final int refcountBits;
  private final int l2EntryBytes;

  Qcow2Size(CreateOptions options) {
    clusterBytes = options.clusterBytes();
    refcountBits = options.refcountBits();
    l2EntryBytes = options.extendedL2() ? 2 * ENTRY_BYTES : ENTRY_BYTES;
  }

  /** A disk's bytes in whole clusters. */
  long dataBytes(long virtualBytes) throws IOException {
    if (virtualBytes > Long.MAX_VALUE - clusterBytes || l1Bytes(virtualBytes) > L1_BYTES_MAX) {
      throw new IOException("the disk is too large for clusters of that size");
    }
    return roundUp(virtualBytes, clusterBytes);
  }

  private long l2Bytes(long virtualBytes) {
    return roundUp(roundUp(virtualBytes, clusterBytes) / clusterBytes * l2EntryBytes, clusterBytes);
  }

  private long l1Bytes(long virtualBytes) {
    return l2Bytes(virtualBytes) / clusterBytes * ENTRY_BYTES;
  }

  /** The file with every cluster of the disk allocated. */
  long fullBytes(long virtualBytes) throws IOException {
    long bytes =
        clusterBytes
            + l2Bytes(virtualBytes)
            + roundUp(l1Bytes(virtualBytes), clusterBytes)
            + dataBytes(virtualBytes);
    return bytes + refcountBytes(bytes / clusterBytes);
  }

  /** The refcount table and blocks, which count themselves too. */
  private long refcountBytes(long clusters) {
    long perBlock = clusterBytes * 8 / refcountBits;
    long perTable = clusterBytes / ENTRY_BYTES;
    long blocks = 0;
    long tables = 0;
    for (long last = -1; blocks + tables != last; ) {
      last = blocks + tables;
      blocks = (clusters + last + perBlock - 1) / perBlock;
      tables = (blocks + perTable - 1) / perTable;
    }
    return (blocks + tables) * clusterBytes;
  }

  /** The bytes of the disk's clusters that hold anything but zeroes, as its tables say. */
  long usedBytes(DiskImage image) throws IOException {
    long[] used = {0};
    long[] at = {0};
    long[] countedTo = {0};
    image.map(
        0,
        image.virtualBytes(),
        (bytes, extent) -> {
          if (!extent.zero()) {
            long first = Math.max(countedTo[0], at[0] - at[0] % clusterBytes);
            long end = roundUp(at[0] + bytes, clusterBytes);
            used[0] += Math.max(0, end - first);
            countedTo[0] = Math.max(countedTo[0], end);
          }
          at[0] += bytes;
          return true;
        });
    return used[0];
  }

  private static long roundUp(long value, long unit) {
    return (value + unit - 1) / unit * unit;
  }
}
