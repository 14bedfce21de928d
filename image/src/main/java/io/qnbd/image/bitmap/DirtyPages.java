package io.qnbd.image.bitmap;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/**
 * Which granules of a disk were written to: bits that are set by any number of threads and never
 * cleared.
 *
 * <p>Memory follows what was written: a page of 4 KiB stands for 32768 granules and is made when
 * the first of them is set. A bit that is set already costs a read.
 */
final class DirtyPages {
  private static final int PAGE_BITS_SHIFT = 15;
  private static final int PAGE_BITS = 1 << PAGE_BITS_SHIFT;

  private static final VarHandle WORDS = MethodHandles.arrayElementVarHandle(long[].class);

  private final int granularityBits;
  private final AtomicReferenceArray<long @Nullable []> pages;

  /** Nothing is set yet. */
  DirtyPages(int granularityBits, long bits) {
    this.granularityBits = granularityBits;
    this.pages = new AtomicReferenceArray<>(pageCount(bits));
  }

  /** The same for another number of bits. Nobody sets one in {@code from} any more. */
  DirtyPages(DirtyPages from, long bits) {
    this(from.granularityBits, bits);
    for (int index = 0; index < Math.min(pages.length(), from.pages.length()); index++) {
      pages.set(index, from.pages.get(index));
    }
  }

  /** A copy that ends after {@code bits}. Nobody sets a bit meanwhile. */
  DirtyPages shortened(long bits) {
    DirtyPages copy = new DirtyPages(granularityBits, bits);
    for (int index = 0; index < copy.pages.length(); index++) {
      long[] page = pages.get(index);
      copy.pages.set(index, page == null ? null : page.clone());
    }
    int last = copy.pages.length() - 1;
    long[] page = last < 0 ? null : copy.pages.get(last);
    int count = (int) (bits - (long) last * PAGE_BITS);
    if (page != null && count < PAGE_BITS) {
      page[count / Long.SIZE] &= ~(-1L << count);
      Arrays.fill(page, count / Long.SIZE + 1, page.length, 0);
    }
    return copy;
  }

  private static int pageCount(long bits) {
    return Math.toIntExact((bits + PAGE_BITS - 1) >>> PAGE_BITS_SHIFT);
  }

  /** Sets the bits of all granules that {@code [offset, offset + bytes)} touches. */
  void set(long offset, long bytes) {
    long last = (offset + bytes - 1) >>> granularityBits;
    for (long bit = offset >>> granularityBits; bit <= last; ) {
      int from = (int) (bit & (PAGE_BITS - 1));
      int to = (int) Math.min(PAGE_BITS - 1, from + (last - bit));
      set(page((int) (bit >>> PAGE_BITS_SHIFT)), from, to);
      bit += to - from + 1;
    }
  }

  private long[] page(int index) {
    long[] page = pages.get(index);
    if (page != null) {
      return page;
    }
    long[] made = new long[PAGE_BITS / Long.SIZE];
    long[] other = pages.compareAndExchange(index, null, made);
    return other == null ? made : other;
  }

  private static void set(long[] page, int from, int to) {
    for (int word = from / Long.SIZE; word <= to / Long.SIZE; word++) {
      long mask = -1L;
      if (word == from / Long.SIZE) {
        mask &= -1L << from;
      }
      if (word == to / Long.SIZE) {
        mask &= -1L >>> (Long.SIZE - 1 - to);
      }
      if (((long) WORDS.getOpaque(page, word) & mask) != mask) {
        long _ = (long) WORDS.getAndBitwiseOr(page, word, mask);
      }
    }
  }

  /** Whether one of {@code bits} from {@code firstBit} on may be set. */
  boolean any(long firstBit, long bits) {
    long last = (firstBit + bits - 1) >>> PAGE_BITS_SHIFT;
    for (long index = firstBit >>> PAGE_BITS_SHIFT; index <= last; index++) {
      if (index < pages.length() && pages.get((int) index) != null) {
        return true;
      }
    }
    return false;
  }

  /**
   * Adds the bits from {@code firstBit} on, a multiple of 64, to those in {@code words}, the least
   * significant bit of the first word first.
   */
  void addTo(long firstBit, long[] words) {
    for (int i = 0; i < words.length; i++) {
      long bit = firstBit + (long) i * Long.SIZE;
      long index = bit >>> PAGE_BITS_SHIFT;
      long[] page = index < pages.length() ? pages.get((int) index) : null;
      if (page != null) {
        words[i] |= (long) WORDS.getVolatile(page, (int) (bit & (PAGE_BITS - 1)) / Long.SIZE);
      }
    }
  }
}
