package io.qnbd.server.net;

import io.netty.channel.SelectStrategy;
import io.netty.util.IntSupplier;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.LongSupplier;

/**
 * Looks out for events for a short while before it lets an event loop sleep.
 *
 * <p>Waking a thread that sleeps costs more than all else that is done for a small request: its
 * processor has rested too, and in a virtual machine it is the host that wakes that. A client that
 * waits for each reply sends its next request soon, so a loop that looks out for it is found awake.
 *
 * <p>Looking out takes a processor from everybody else. So a loop does it for as long only as it
 * pays, as KVM does for virtual processors: for twice as long after each wait that a lookout could
 * have covered, and for half as long, down to not at all, after each that was longer. Not more
 * loops do it at a time than {@link Lookouts} has places.
 *
 * <p>Owner: one event loop.
 */
final class PollingStrategy implements SelectStrategy {
  /** What a client on the same machine takes from a reply to its next request when both slept. */
  static final long LOOKOUT_NANOS_MAX = TimeUnit.MICROSECONDS.toNanos(400);

  static final long LOOKOUT_NANOS_MIN = LOOKOUT_NANOS_MAX / 8;

  /** The longest wait that a lookout covers: the waking that it spares is not part of it. */
  static final long SHORT_WAIT_NANOS_MAX = LOOKOUT_NANOS_MAX + TimeUnit.MICROSECONDS.toNanos(100);

  private final Lookouts lookouts;
  private final BooleanSupplier hasTasks;
  private final LongSupplier clock;

  /** How long the next lookout lasts at most; 0, or from the minimum to the maximum. */
  private long nanos;

  /** Whether the loop went to sleep when it was here last. */
  private boolean slept;

  /** When it last had nothing to do. */
  private long waitStart;

  /**
   * How many loops may look out at a time: so many as there are places, less one for each call in
   * an image, which needs a processor sooner. Thread-safe.
   */
  static final class Lookouts {
    private final AtomicInteger free;
    private final LongSupplier callsInProgress;

    Lookouts(int places, LongSupplier callsInProgress) {
      this.free = new AtomicInteger(places);
      this.callsInProgress = callsInProgress;
    }

    /** For a machine of {@code processors}: half of them, and none that has only one. */
    static Lookouts forProcessors(int processors, LongSupplier callsInProgress) {
      return new Lookouts(processors / 2, callsInProgress);
    }

    private boolean enter() {
      if (free.getAndDecrement() > callsInProgress.getAsLong()) {
        return true;
      }
      leave();
      return false;
    }

    private void leave() {
      free.incrementAndGet();
    }
  }

  /**
   * @param hasTasks whether another thread has given the loop something to do, which does not wake
   *     a loop that is not asleep
   * @param clock nanoseconds
   */
  PollingStrategy(Lookouts lookouts, BooleanSupplier hasTasks, LongSupplier clock) {
    this.lookouts = lookouts;
    this.hasTasks = hasTasks;
    this.clock = clock;
  }

  /** The number of events that are there, or {@link #SELECT} to sleep until there are some. */
  @Override
  public int calculateStrategy(IntSupplier selectNow, boolean tasksWait) throws Exception {
    if (tasksWait) {
      slept = false;
      return selectNow.get();
    }
    long now = clock.getAsLong();
    if (slept) {
      adapt(now - waitStart);
    }
    waitStart = now;
    if (nanos > 0 && lookouts.enter()) {
      try {
        do {
          int events = selectNow.get();
          if (events != 0 || hasTasks.getAsBoolean()) {
            slept = false;
            return events;
          }
          Thread.onSpinWait();
        } while (clock.getAsLong() - waitStart < nanos);
      } finally {
        lookouts.leave();
      }
    }
    slept = true;
    return SELECT;
  }

  private void adapt(long waited) {
    if (waited <= SHORT_WAIT_NANOS_MAX) {
      nanos = Math.clamp(2 * nanos, LOOKOUT_NANOS_MIN, LOOKOUT_NANOS_MAX);
    } else {
      nanos = nanos / 2 < LOOKOUT_NANOS_MIN ? 0 : nanos / 2;
    }
  }
}
