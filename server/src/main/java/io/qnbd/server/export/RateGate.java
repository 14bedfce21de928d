package io.qnbd.server.export;

import java.util.function.LongSupplier;

/**
 * Holds the requests of an export to its {@link RateLimits}: two token buckets that all of its
 * connections share, one of bytes and one of requests.
 *
 * <p>A bucket is kept as the moment at which it has paid for everything it let through. While that
 * moment lies in the past by {@link #BURST_NANOS} or more, the bucket is full; while it lies in the
 * future, nobody gets anything. A request is let through whole as soon as its bucket is not in
 * debt, however large it is: its cost is paid afterwards, by whoever comes next. So a request
 * larger than the burst is not stuck for ever, and the rate is right over time.
 *
 * <p>{@link #tryTake} never blocks. Who is told to wait tries again after that long; it may then be
 * told so once more, because another connection came first.
 *
 * <p>Thread-safe; the monitor is held for some arithmetic only.
 */
public final class RateGate {

  /** An export that was idle may be faster than its rate by what that rate gives in so long. */
  static final long BURST_NANOS = 250_000_000;

  private static final double NANOS_PER_SECOND = 1e9;

  /** Bounds a debt, so that a huge request at a tiny rate does not end in an overflow: a year. */
  private static final double DEBT_NANOS_MAX = 365 * 86_400e9;

  private final LongSupplier nanoClock;
  private RateLimits limits;

  /** When the bytes, and the requests, that were let through are paid for. */
  private long bytesPaidAt;

  private long requestsPaidAt;

  public RateGate(RateLimits limits) {
    this(limits, System::nanoTime);
  }

  /**
   * @param nanoClock as {@link System#nanoTime}
   */
  RateGate(RateLimits limits, LongSupplier nanoClock) {
    this.nanoClock = nanoClock;
    this.limits = limits;
    forget();
  }

  /**
   * Lets a request through, if it may go now.
   *
   * @param bytes what the request carries, in either direction; 0 or more
   * @return 0 when it may go: then it is counted; otherwise how many nanoseconds to wait before
   *     trying again, and nothing is counted
   */
  public synchronized long tryTake(long bytes) {
    if (bytes < 0) {
      throw new IllegalArgumentException("a request of " + bytes + " bytes");
    }
    if (limits.equals(RateLimits.NONE)) {
      return 0;
    }
    long now = nanoClock.getAsLong();
    // Differences only: the clock's origin is anywhere, and it may wrap.
    long wait = Math.max(bytesPaidAt - now, requestsPaidAt - now);
    if (wait > 0) {
      return wait;
    }
    bytesPaidAt = after(now, bytesPaidAt, bytes, limits.bytesPerSecond());
    requestsPaidAt = after(now, requestsPaidAt, 1, limits.requestsPerSecond());
    return 0;
  }

  /** Changes the limits. What was let through under the old ones is forgotten. */
  public synchronized void limit(RateLimits changed) {
    if (!changed.equals(limits)) {
      limits = changed;
      forget();
    }
  }

  /** When a bucket will have paid for this too; without a limit that is always long ago. */
  private static long after(long now, long paidAt, long amount, long perSecond) {
    long from = now + Math.max(paidAt - now, -BURST_NANOS);
    if (perSecond == 0) {
      return from;
    }
    double cost = Math.min(amount * NANOS_PER_SECOND / perSecond, DEBT_NANOS_MAX);
    return from + (long) Math.ceil(cost);
  }

  private synchronized void forget() {
    bytesPaidAt = nanoClock.getAsLong() - BURST_NANOS;
    requestsPaidAt = bytesPaidAt;
  }
}
