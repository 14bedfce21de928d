package io.qnbd.image.io;

import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * A shared/exclusive lock over ranges of {@code long}s, fair among those that conflict.
 *
 * <p>Two requests conflict when their ranges overlap and at least one is exclusive. A request is
 * granted once every conflicting request that arrived before it has been released, whether that one
 * was held or still waiting: nobody is overtaken by a request that conflicts with it, so nobody
 * starves, and a chain of waiters cannot deadlock among themselves. Requests that do not conflict
 * never wait for each other.
 *
 * <p>Not reentrant: a thread that holds a range and asks for one that conflicts with it waits for
 * ever. A hold may be released by another thread than the one that acquired it. Releasing happens
 * before the grant of each request that waited for it.
 *
 * <p>All requests, held and waiting, stand in one list in order of arrival, under one mutex that is
 * never held while waiting. Acquiring and releasing look at every request in the list, so the cost
 * grows with the requests in flight (hundreds), not with the ranges' sizes.
 */
public final class RangeLock {
  private final ReentrantLock mutex = new ReentrantLock();

  /** The sentinel of a circular list in order of arrival; under the mutex. */
  private final Hold ends = new Hold(0, -1, false);

  /**
   * Waits until {@code [first, last]} is granted; the caller releases it. An interrupt does not end
   * the wait and is still pending afterwards.
   */
  public Hold acquire(long first, long last, boolean exclusive) {
    Hold hold = new Hold(first, last, exclusive);
    mutex.lock();
    try {
      hold.blockers = conflicts(hold);
      append(hold);
      if (hold.blockers == 0) {
        return hold;
      }
      hold.waiter = Thread.currentThread();
    } finally {
      mutex.unlock();
    }
    boolean interrupted = false;
    while (hold.waiter != null) {
      LockSupport.park(this);
      interrupted |= Thread.interrupted();
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    return hold;
  }

  /**
   * Grants {@code [first, last]} if no conflicting request is held or waiting.
   *
   * @return the hold, which the caller releases, or null when it would have to wait
   */
  public @Nullable Hold tryAcquire(long first, long last, boolean exclusive) {
    Hold hold = new Hold(first, last, exclusive);
    mutex.lock();
    try {
      if (conflicts(hold) != 0) {
        return null;
      }
      append(hold);
      return hold;
    } finally {
      mutex.unlock();
    }
  }

  /** Gives a granted range back and grants those that waited for it alone. */
  public void release(Hold hold) {
    mutex.lock();
    try {
      if (hold.next == hold || hold.blockers != 0) {
        throw new AssertionError("released " + hold + " is not held");
      }
      Hold later = hold.next;
      remove(hold);
      for (; later != ends; later = later.next) {
        if (later.conflictsWith(hold) && --later.blockers == 0) {
          Thread waiter = later.waiter;
          later.waiter = null; // the grant: the waiter returns once it sees this
          LockSupport.unpark(waiter);
        }
      }
    } finally {
      mutex.unlock();
    }
  }

  /** Requests that are held or waiting: for tests and metrics. */
  int size() {
    mutex.lock();
    try {
      int count = 0;
      for (Hold at = ends.next; at != ends; at = at.next) {
        count++;
      }
      return count;
    } finally {
      mutex.unlock();
    }
  }

  private int conflicts(Hold hold) {
    int count = 0;
    for (Hold earlier = ends.next; earlier != ends; earlier = earlier.next) {
      if (hold.conflictsWith(earlier)) {
        count++;
      }
    }
    return count;
  }

  private void append(Hold hold) {
    hold.previous = ends.previous;
    hold.next = ends;
    ends.previous.next = hold;
    ends.previous = hold;
  }

  private static void remove(Hold hold) {
    hold.previous.next = hold.next;
    hold.next.previous = hold.previous;
    hold.next = hold;
    hold.previous = hold;
  }

  /** A range that was asked for; the proof of a granted one. Its fields belong to the lock. */
  public static final class Hold {
    private final long first;
    private final long last;
    private final boolean exclusive;

    /** Neighbours in order of arrival; the hold itself when it is in no list. */
    private Hold previous = this;

    private Hold next = this;

    /** Conflicting requests that arrived earlier and are not released; granted at 0. */
    private int blockers;

    /** The thread that waits for the grant, or null; written under the mutex. */
    private volatile @Nullable Thread waiter;

    private Hold(long first, long last, boolean exclusive) {
      this.first = first;
      this.last = last;
      this.exclusive = exclusive;
    }

    private boolean conflictsWith(Hold other) {
      return first <= other.last && other.first <= last && (exclusive || other.exclusive);
    }

    @Override
    public String toString() {
      return "%s range [%d, %d]".formatted(exclusive ? "exclusive" : "shared", first, last);
    }
  }
}
