package io.qnbd.image.io;

import java.lang.invoke.VarHandle;
import java.util.concurrent.atomic.AtomicLongArray;

/**
 * Tells a reader of a file which of the bytes that it got were being written meanwhile. Most file
 * systems of Linux copy out of the page cache while another thread copies into it, so that a read
 * may see the halves of two writes in one sector; no disk does that (NVMe: AWUN is at least one
 * block), and guests rely on it.
 *
 * <p>Each page of the file has one of {@value #STAMPS} stamps, which pages as many apart share: a
 * stranger's write costs a second read, no more.
 *
 * <pre>
 * stamp: bits 0-15 writes under way; bits 16-63 writes that have ended
 * </pre>
 *
 * <p>Thread-safe and free of locks.
 */
final class WriteStamps {
  static final int PAGE_BYTES = 4096;

  /** 32 KiB for each file that is written to, for 16 MiB without a meeting by chance. */
  private static final int STAMPS = 4096;

  /** What {@link #before} says of a range that is being written to; no sum of stamps is below 0. */
  static final long BUSY = -1;

  private static final long BEGUN = 1;
  private static final long UNDER_WAY = 0xffff;
  private static final long ENDED = UNDER_WAY + 1 - BEGUN;

  private final AtomicLongArray stamps = new AtomicLongArray(STAMPS);

  /** Called before bytes of the range change; {@link #end} must follow. */
  void begin(long at, long bytes) {
    add(at, bytes, BEGUN);
  }

  /** Called after bytes of the range have changed, or after it has failed. */
  void end(long at, long bytes) {
    add(at, bytes, ENDED);
  }

  private void add(long at, long bytes, long change) {
    long first = at / PAGE_BYTES;
    int count = pages(at, bytes);
    for (int page = 0; page < count; page++) {
      stamps.getAndAdd(index(first + page), change);
    }
  }

  /** Called before a read of the range: the sum of its stamps, or {@link #BUSY}. */
  long before(long at, long bytes) {
    long first = at / PAGE_BYTES;
    int count = pages(at, bytes);
    long sum = 0;
    for (int page = 0; page < count; page++) {
      long stamp = stamps.get(index(first + page));
      if ((stamp & UNDER_WAY) != 0) {
        return BUSY;
      }
      sum += stamp;
    }
    return sum & Long.MAX_VALUE;
  }

  /** Called after the read: whether nothing of the range was written to since {@link #before}. */
  boolean unchanged(long at, long bytes, long before) {
    VarHandle.acquireFence(); // what was read is not looked at later than the stamps
    return before != BUSY && before(at, bytes) == before;
  }

  /** The pages that the range touches; those that share a stamp with another of it count once. */
  private static int pages(long at, long bytes) {
    return bytes == 0
        ? 0
        : (int) Math.min(STAMPS, (at + bytes - 1) / PAGE_BYTES - at / PAGE_BYTES + 1);
  }

  private static int index(long page) {
    return (int) (page & (STAMPS - 1));
  }
}
