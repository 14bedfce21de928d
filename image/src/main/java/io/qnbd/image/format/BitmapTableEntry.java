package io.qnbd.image.format;

/**
 * One entry of a bitmap table: 64 bits, big-endian (qcow2 specification, "Bitmap table").
 *
 * <pre>
 * bit  0      without an offset: the cluster reads as ones, else as zeroes; with one: reserved
 * bits 1-8    reserved, zero
 * bits 9-55   host offset of the bitmap's data; 0 when there is none
 * bits 56-63  reserved, zero
 * </pre>
 *
 * <p>In the data, the least significant bit of a byte comes first. Entries stay {@code long}s:
 * tables hold millions.
 */
public final class BitmapTableEntry {
  public static final int BYTES = 8;

  /** All bits are set, and there is no data. */
  public static final long ALL_ONES = 1;

  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  private BitmapTableEntry() {}

  /** Host offset of the cluster with the bits, 0 when there is none. */
  public static long dataOffset(long entry) {
    return entry & OFFSET_MASK;
  }

  /** Of an entry without data: whether all its bits are set. */
  public static boolean allOnes(long entry) {
    return (entry & ALL_ONES) != 0;
  }

  public static long reservedBits(long entry) {
    return entry & ~OFFSET_MASK & ~(dataOffset(entry) == 0 ? ALL_ONES : 0);
  }
}
