package io.qnbd.image;

/** What a cluster of a qcow2 image's own file is used for. */
public enum ClusterKind {
  HEADER,
  L1_TABLE,
  L2_TABLE,
  /** The refcount table and its blocks. */
  REFCOUNTS,
  SNAPSHOT_TABLE,
  /** Persistent dirty bitmaps: their directory, tables and data. */
  BITMAP,
  ENCRYPTION_HEADER,
  /** Guest data of the disk alone. */
  DATA,
  /** Holds the streams of compressed clusters, whoever refers to them. */
  COMPRESSED,
  /** Guest data that the disk shares with snapshots, or snapshots with each other. */
  SHARED,
  /** Guest data that one snapshot alone refers to. */
  SNAPSHOT,
  /** Allocated, but reads as zeroes: marked so, or the host keeps nothing for it. */
  ZERO,
  /** Counted as used, but nothing refers to it. */
  LEAKED,
  /** Not in use, but the host still keeps something for it. */
  FREE,
  /** Not in use, and the host keeps nothing for it. */
  HOLE;

  /** Whether the cluster belongs to the format rather than to a guest. */
  public boolean metadata() {
    return compareTo(ENCRYPTION_HEADER) <= 0;
  }
}
