package io.qnbd.image.format;

/**
 * One L1 entry: 64 bits, big-endian (qcow2 specification, "L1 table entry").
 *
 * <pre>
 * bits 0-8    reserved, zero
 * bits 9-55   host offset of the L2 table; 0 when there is none
 * bits 56-62  reserved, zero
 * bit  63     COPIED: the L2 table's refcount is exactly one
 * </pre>
 *
 * Entries stay {@code long}s: tables hold millions.
 */
public final class L1Entry {
  public static final int BYTES = 8;
  public static final long COPIED = 1L << 63;
  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  private L1Entry() {}

  public static long of(long tableOffset) {
    return tableOffset | COPIED;
  }

  /** Host offset of the L2 table, 0 when there is none. */
  public static long tableOffset(long entry) {
    return entry & OFFSET_MASK;
  }

  public static boolean copied(long entry) {
    return (entry & COPIED) != 0;
  }

  public static long reservedBits(long entry) {
    return entry & ~(COPIED | OFFSET_MASK);
  }
}
