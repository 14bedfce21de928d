package io.qnbd.server.export;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;

/**
 * The bytes that the data of all requests in flight may take together, over all connections.
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>{@code used <= total}, unless a single request that is larger than {@code total} is alone.
 *   <li>Waiters get their bytes strictly in the order in which they came: while one waits nobody
 *       else is served, so a large request is not starved by small ones.
 *   <li>Bytes are taken on behalf of a waiter before its callback runs.
 * </ul>
 *
 * <p>Thread-safe; callbacks run outside the lock on the thread that gave bytes back, and must only
 * hand over to their own thread.
 */
public final class MemoryBudget {

  /** A place in the queue. */
  public static final class Waiter {
    private final long bytes;
    private final Runnable granted;

    private Waiter(long bytes, Runnable granted) {
      this.bytes = bytes;
      this.granted = granted;
    }
  }

  private final long total;
  private final ArrayDeque<Waiter> waiters = new ArrayDeque<>();
  private long used;

  public MemoryBudget(long totalBytes) {
    if (totalBytes < 1) {
      throw new IllegalArgumentException("budget of " + totalBytes + " bytes, expected 1 or more");
    }
    this.total = totalBytes;
  }

  /** Takes {@code bytes} if nobody waits and they fit. */
  public synchronized boolean tryTake(long bytes) {
    if (!waiters.isEmpty() || !fits(bytes)) {
      return false;
    }
    used += bytes;
    return true;
  }

  /** Takes {@code bytes} later, and then calls {@code granted} once. */
  public Waiter await(long bytes, Runnable granted) {
    Waiter waiter = new Waiter(bytes, granted);
    List<Waiter> served;
    synchronized (this) {
      waiters.add(waiter);
      served = serve();
    }
    served.forEach(each -> each.granted.run());
    return waiter;
  }

  /**
   * Leaves the queue.
   *
   * @return false when it is too late: the bytes were taken and are the caller's to give back
   */
  public boolean cancel(Waiter waiter) {
    List<Waiter> served;
    synchronized (this) {
      if (!waiters.remove(waiter)) {
        return false;
      }
      served = serve();
    }
    served.forEach(each -> each.granted.run());
    return true;
  }

  /** Gives {@code bytes} back. */
  public void giveBack(long bytes) {
    List<Waiter> served;
    synchronized (this) {
      used -= bytes;
      if (used < 0) {
        throw new AssertionError("more given back than taken: " + used);
      }
      if (waiters.isEmpty()) {
        return;
      }
      served = serve();
    }
    served.forEach(each -> each.granted.run());
  }

  public synchronized boolean hasWaiters() {
    return !waiters.isEmpty();
  }

  /** Bytes taken at this moment. */
  public synchronized long usedBytes() {
    return used;
  }

  private boolean fits(long bytes) {
    return used == 0 || bytes <= total - used;
  }

  private List<Waiter> serve() {
    List<Waiter> served = new ArrayList<>();
    for (Waiter next = waiters.peek(); next != null && fits(next.bytes); next = waiters.peek()) {
      waiters.remove();
      used += next.bytes;
      served.add(next);
    }
    return served;
  }
}
