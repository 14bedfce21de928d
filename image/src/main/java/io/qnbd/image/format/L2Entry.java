package io.qnbd.image.format;

/**
 * One L2 entry: 64 bits, big-endian (qcow2 specification, "L2 table entry").
 *
 * <pre>
 * standard cluster              compressed cluster, x = 62 - (cluster_bits - 8)
 * bit  0      reads as zeroes   bits 0 to x-1   host offset, any byte
 *             (version 3 only)  bits x to 61    512-byte sectors used beyond the first
 * bits 1-8    reserved, zero    bit  62         1
 * bits 9-55   host offset       bit  63         0
 * bits 56-61  reserved, zero
 * bit  62     0
 * bit  63     COPIED: the cluster's refcount is exactly one
 * </pre>
 *
 * Entries stay {@code long}s: tables hold millions.
 */
public final class L2Entry {
  public static final int BYTES = 8;
  public static final long COPIED = 1L << 63;
  public static final long COMPRESSED = 1L << 62;
  public static final long ZERO = 1;
  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;
  private static final int SECTOR_BITS = 9;

  private L2Entry() {}

  /** The entry of a cluster of its own: refcount one. */
  public static long data(long hostOffset) {
    return hostOffset | COPIED;
  }

  /** The entry of a cluster of its own that reads as zeroes. */
  public static long allocatedZero(long hostOffset) {
    return hostOffset | COPIED | ZERO;
  }

  public static boolean copied(long entry) {
    return (entry & COPIED) != 0;
  }

  public static boolean compressed(long entry) {
    return (entry & COMPRESSED) != 0;
  }

  public static boolean zero(long entry) {
    return (entry & ZERO) != 0;
  }

  /** Host offset of a standard cluster, 0 when there is none. */
  public static long hostOffset(long entry) {
    return entry & OFFSET_MASK;
  }

  /** Bits that must be zero in a standard entry; {@code zeroFlagKnown} from version 3 on. */
  public static long reservedBits(long entry, boolean zeroFlagKnown) {
    return entry & ~(COPIED | OFFSET_MASK | (zeroFlagKnown ? ZERO : 0));
  }

  private static int compressedOffsetBits(int clusterBits) {
    return 62 - (clusterBits - 8);
  }

  /** The host offset from which on a compressed cluster can't begin. */
  public static long compressedOffsetEnd(int clusterBits) {
    return 1L << compressedOffsetBits(clusterBits);
  }

  /**
   * The entry of a compressed cluster.
   *
   * @param bytes of the stream, from 1 to a cluster
   */
  public static long compressed(long hostOffset, int bytes, int clusterBits) {
    if (hostOffset >= compressedOffsetEnd(clusterBits)) {
      throw new AssertionError("a compressed cluster at " + hostOffset);
    }
    long sectors = ((hostOffset + bytes - 1) >>> SECTOR_BITS) - (hostOffset >>> SECTOR_BITS);
    return COMPRESSED | sectors << compressedOffsetBits(clusterBits) | hostOffset;
  }

  /** Host offset of the first byte of a compressed cluster. */
  public static long compressedOffset(long entry, int clusterBits) {
    return entry & ((1L << compressedOffsetBits(clusterBits)) - 1);
  }

  /**
   * The most bytes that the compressed cluster takes: to the end of its last sector. At most two
   * clusters.
   */
  public static int compressedBytes(long entry, int clusterBits) {
    long sectorsMask = (1L << (clusterBits - 8)) - 1;
    long sectors = ((entry >>> compressedOffsetBits(clusterBits)) & sectorsMask) + 1;
    long inSector = entry & ((1L << SECTOR_BITS) - 1);
    return (int) ((sectors << SECTOR_BITS) - inSector);
  }
}
