package io.qnbd.image.format;

/**
 * Every shift and mask that follows from the cluster size and the refcount width lives here and
 * nowhere else.
 *
 * <p>Units: a host offset is a byte of the image file, a host cluster is a host offset divided by
 * the cluster size; a guest offset and a guest cluster are the same for the virtual disk.
 *
 * @param clusterBits 9 to 21 (qcow2 specification, "Header", {@code cluster_bits})
 * @param refcountOrder 0 to 6: a refcount has {@code 1 << refcountOrder} bits
 * @param extendedL2 whether L2 entries have a second half, for the subclusters of their cluster
 */
public record Geometry(int clusterBits, int refcountOrder, boolean extendedL2) {

  /** An L2 slice is what one cache entry holds and one write rewrites: at most a page. */
  private static final int SLICE_BYTES_MAX = 4096;

  /** Of an image with standard L2 entries. */
  public Geometry(int clusterBits, int refcountOrder) {
    this(clusterBits, refcountOrder, false);
  }

  public int clusterBytes() {
    return 1 << clusterBits;
  }

  /** The cluster that holds the byte, on either side. */
  public long clusterOf(long offset) {
    return offset >>> clusterBits;
  }

  /** The first byte of a cluster, on either side. */
  public long offsetOf(long cluster) {
    return cluster << clusterBits;
  }

  /** The byte's distance from the start of its cluster. */
  public int inCluster(long offset) {
    return (int) (offset & (clusterBytes() - 1));
  }

  /** How many clusters it takes to hold that many bytes. */
  public long clustersFor(long bytes) {
    return (bytes + clusterBytes() - 1) >>> clusterBits;
  }

  /** 64-bit words of one L2 entry. */
  public int l2EntryWords() {
    return extendedL2 ? 2 : 1;
  }

  /** Bytes of one L2 entry. */
  public int l2EntryBytes() {
    return l2EntryWords() * L2Entry.BYTES;
  }

  /** Entries in one L2 table. */
  public int l2Entries() {
    return clusterBytes() / l2EntryBytes();
  }

  /** Bytes of a subcluster, the unit in which extended L2 entries say where bytes are. */
  public int subclusterBytes() {
    return clusterBytes() / Subclusters.COUNT;
  }

  /** Index in its cluster of the subcluster that holds the byte. */
  public int subclusterOf(long offset) {
    return inCluster(offset) / subclusterBytes();
  }

  public long l1Index(long guestCluster) {
    return guestCluster / l2Entries();
  }

  public int l2Index(long guestCluster) {
    return (int) (guestCluster & (l2Entries() - 1));
  }

  /** Bytes of an L2 slice: the whole table, or a page of it. */
  public int sliceBytes() {
    return Math.min(clusterBytes(), SLICE_BYTES_MAX);
  }

  /** 64-bit words of a slice. */
  public int sliceWords() {
    return sliceBytes() / Long.BYTES;
  }

  /** L2 entries in a slice. */
  public int sliceEntries() {
    return sliceBytes() / l2EntryBytes();
  }

  public int refcountBits() {
    return 1 << refcountOrder;
  }

  /** The largest refcount that can be stored, as an unsigned number. */
  public long refcountMax() {
    return refcountOrder == 6 ? -1L : (1L << refcountBits()) - 1;
  }

  /** Clusters that one refcount block counts. */
  public long refcountBlockEntries() {
    return 1L << (clusterBits + 3 - refcountOrder);
  }

  /** Bytes of guest data that one L1 entry maps. */
  public long l2CoverageBytes() {
    return (long) l2Entries() << clusterBits;
  }
}
