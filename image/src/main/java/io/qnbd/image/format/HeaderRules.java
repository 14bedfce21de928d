package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;

/**
 * What the fields of a header must satisfy, when it is read and when it is written. The limits are
 * QEMU's, so that an image which one side accepts is accepted by the other.
 */
public final class HeaderRules {
  public static final int CLUSTER_BITS_MIN = 9;

  /** 2 MiB clusters. */
  public static final int CLUSTER_BITS_MAX = 21;

  /** 32 subclusters of at least 512 bytes. */
  public static final int EXTENDED_L2_CLUSTER_BITS_MIN = 14;

  /** 32 MiB of 8-byte entries. */
  public static final int L1_ENTRIES_MAX = (32 << 20) / Long.BYTES;

  public static final int REFCOUNT_TABLE_BYTES_MAX = 8 << 20;

  public static final int SNAPSHOTS_MAX = 65536;

  /** 64-bit refcounts. */
  public static final int REFCOUNT_ORDER_MAX = 6;

  public static final int BACKING_NAME_BYTES_MAX = 1023;

  /** Far more than there are types; bounds the objects that a 2 MiB cluster turns into. */
  public static final int EXTENSIONS_MAX = 256;

  /** Table entries have room for offsets of 56 bits. */
  public static final long OFFSET_MAX = (1L << 56) - 1;

  private HeaderRules() {}

  static void check(Header header, String fileName, long fileBytes) throws CorruptImageException {
    checkVersion(header, fileName);
    checkFeatures(header, fileName);
    checkL1(header, fileName, fileBytes);
    checkRefcounts(header, fileName, fileBytes);
    if (header.snapshotCount() < 0 || header.snapshotCount() > SNAPSHOTS_MAX) {
      throw corrupt(fileName, "nb_snapshots", header.snapshotCount(), "at most " + SNAPSHOTS_MAX);
    }
    if (header.snapshotCount() > 0) {
      long bytesMin = (long) header.snapshotCount() * SnapshotEntry.FIXED_BYTES;
      checkTable(
          header.clusterBytes(),
          fileName,
          "snapshots_offset",
          header.snapshotsOffset(),
          bytesMin,
          fileBytes);
    }
  }

  private static void checkVersion(Header header, String fileName) throws CorruptImageException {
    if (header.clusterBits() < CLUSTER_BITS_MIN || header.clusterBits() > CLUSTER_BITS_MAX) {
      throw corrupt(
          fileName,
          "cluster_bits",
          header.clusterBits(),
          CLUSTER_BITS_MIN + " to " + CLUSTER_BITS_MAX);
    }
    int headerBytesMin = header.version() == 2 ? HeaderLayout.V2_BYTES : HeaderLayout.V3_BYTES_MIN;
    int headerBytesMax = header.version() == 2 ? HeaderLayout.V2_BYTES : header.clusterBytes();
    if (header.headerBytes() < headerBytesMin || header.headerBytes() > headerBytesMax) {
      throw corrupt(
          fileName,
          "header_length",
          header.headerBytes(),
          headerBytesMin + " to " + headerBytesMax);
    }
    if (header.version() == 2
        && (header.incompatibleFeatures() != 0
            || header.compatibleFeatures() != 0
            || header.autoclearFeatures() != 0
            || header.compressionType() != 0
            || header.refcountOrder() != 4)) {
      throw new CorruptImageException(fileName + ": version 2 with a feature of version 3");
    }
  }

  private static void checkFeatures(Header header, String fileName) throws CorruptImageException {
    boolean compressionBit = (header.incompatibleFeatures() & FeatureBits.COMPRESSION_TYPE) != 0;
    if (compressionBit != (header.compressionType() != Header.COMPRESSION_DEFLATE)) {
      throw new CorruptImageException(
          String.format(
              "%s: header field compression_type is %d and the compression type bit is %s,"
                  + " expected both or neither",
              fileName, header.compressionType(), compressionBit ? "set" : "clear"));
    }
    if (header.extendedL2() && header.clusterBits() < EXTENDED_L2_CLUSTER_BITS_MIN) {
      throw corrupt(
          fileName,
          "cluster_bits",
          header.clusterBits(),
          "at least " + EXTENDED_L2_CLUSTER_BITS_MIN + " with extended L2 entries");
    }
  }

  private static void checkL1(Header header, String fileName, long fileBytes)
      throws CorruptImageException {
    if (header.virtualBytes() < 0) {
      throw new CorruptImageException(
          String.format(
              "%s: header field size is %s, expected less than 2^63",
              fileName, Long.toUnsignedString(header.virtualBytes())));
    }
    if (header.l1Entries() < 0 || header.l1Entries() > L1_ENTRIES_MAX) {
      throw corrupt(fileName, "l1_size", header.l1Entries(), "at most " + L1_ENTRIES_MAX);
    }
    long entriesMin =
        l1EntriesFor(header.virtualBytes(), header.clusterBits(), header.extendedL2());
    if (header.l1Entries() < entriesMin) {
      throw corrupt(
          fileName,
          "l1_size",
          header.l1Entries(),
          String.format("at least %d for a disk of %d bytes", entriesMin, header.virtualBytes()));
    }
    if (header.l1Entries() > 0) {
      long bytes = (long) header.l1Entries() * Long.BYTES;
      checkTable(
          header.clusterBytes(), fileName, "l1_table_offset", header.l1Offset(), bytes, fileBytes);
    }
  }

  private static void checkRefcounts(Header header, String fileName, long fileBytes)
      throws CorruptImageException {
    if (header.refcountOrder() < 0 || header.refcountOrder() > REFCOUNT_ORDER_MAX) {
      throw corrupt(
          fileName, "refcount_order", header.refcountOrder(), "at most " + REFCOUNT_ORDER_MAX);
    }
    int clustersMax = REFCOUNT_TABLE_BYTES_MAX >> header.clusterBits();
    if (header.refcountTableClusters() < 1 || header.refcountTableClusters() > clustersMax) {
      throw corrupt(
          fileName,
          "refcount_table_clusters",
          header.refcountTableClusters(),
          "1 to " + clustersMax);
    }
    checkTable(
        header.clusterBytes(),
        fileName,
        "refcount_table_offset",
        header.refcountTableOffset(),
        (long) header.refcountTableClusters() << header.clusterBits(),
        fileBytes);
  }

  /** The file may end inside the table's last cluster; what is missing reads as zeroes. */
  static void checkTable(
      int clusterBytes, String fileName, String field, long offset, long bytes, long fileBytes)
      throws CorruptImageException {
    if (offset <= 0 || offset > OFFSET_MAX || offset % clusterBytes != 0) {
      throw corruptOffset(fileName, field, offset, "a multiple of " + clusterBytes + ", not 0");
    }
    if (offset >= fileBytes || offset + bytes - clusterBytes >= fileBytes) {
      throw corruptOffset(
          fileName,
          field,
          offset,
          String.format("%d bytes inside the file of %d bytes", bytes, fileBytes));
    }
  }

  /** How many L1 entries a disk of that size has. */
  public static long l1EntriesFor(long virtualBytes, int clusterBits, boolean extendedL2) {
    long coverageBytes = new Geometry(clusterBits, 0, extendedL2).l2CoverageBytes();
    return Math.ceilDiv(virtualBytes, coverageBytes);
  }

  static CorruptImageException corrupt(String fileName, String field, long value, String expected) {
    return new CorruptImageException(
        String.format("%s: header field %s is %d, expected %s", fileName, field, value, expected));
  }

  static CorruptImageException corruptOffset(
      String fileName, String field, long value, String expected) {
    return new CorruptImageException(
        String.format(
            "%s: header field %s is 0x%x, expected %s", fileName, field, value, expected));
  }
}
