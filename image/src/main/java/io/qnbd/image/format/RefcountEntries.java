package io.qnbd.image.format;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * The entries of a refcount block (qcow2 specification, "Refcount block entry"): unsigned,
 * big-endian numbers of 1 to 64 bits; those narrower than a byte fill it from its low bits up.
 */
public final class RefcountEntries {
  private static final VarHandle SHORTS =
      MethodHandles.byteArrayViewVarHandle(short[].class, ByteOrder.BIG_ENDIAN);
  private static final VarHandle INTS =
      MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.BIG_ENDIAN);
  private static final VarHandle LONGS =
      MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.BIG_ENDIAN);

  private RefcountEntries() {}

  /** The entry at {@code index} of a block whose entries have {@code 1 << order} bits. */
  public static long get(byte[] block, int order, int index) {
    return switch (order) {
      case 0, 1, 2 -> {
        int shift = (index << order) & 7;
        yield (block[(index << order) >>> 3] >>> shift) & ((1 << (1 << order)) - 1);
      }
      case 3 -> block[index] & 0xffL;
      case 4 -> (short) SHORTS.get(block, index * 2) & 0xffffL;
      case 5 -> (int) INTS.get(block, index * 4) & 0xffff_ffffL;
      case 6 -> (long) LONGS.get(block, index * 8);
      default -> throw new AssertionError("refcount order is " + order + ", expected 0 to 6");
    };
  }

  /** Stores {@code value}, which must fit, at {@code index}. */
  public static void set(byte[] block, int order, int index, long value) {
    switch (order) {
      case 0, 1, 2 -> {
        int shift = (index << order) & 7;
        int mask = ((1 << (1 << order)) - 1) << shift;
        int at = (index << order) >>> 3;
        block[at] = (byte) ((block[at] & ~mask) | ((int) value << shift));
      }
      case 3 -> block[index] = (byte) value;
      case 4 -> SHORTS.set(block, index * 2, (short) value);
      case 5 -> INTS.set(block, index * 4, (int) value);
      case 6 -> LONGS.set(block, index * 8, value);
      default -> throw new AssertionError("refcount order is " + order + ", expected 0 to 6");
    }
  }

  /** The byte of the block that holds, or begins, the entry at {@code index}. */
  public static int byteOf(int order, int index) {
    return (int) (((long) index << order) >>> 3);
  }
}
