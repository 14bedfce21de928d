package io.qnbd.server.export;

import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The threads that call images, and the count of calls that have not come back, commits included.
 *
 * <p>Platform threads, because a virtual thread in buffered file I/O holds its carrier. They are
 * never interrupted: an interrupt closes the file channel under everyone.
 *
 * <p>Thread-safe.
 */
public final class Workers {
  private final ExecutorService threads;
  private final AtomicLong calls = new AtomicLong();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition quiet = lock.newCondition();

  public Workers(int threadCount) {
    ThreadFactory factory = Thread.ofPlatform().name("qnbd-worker-", 0).daemon(true).factory();
    this.threads = Executors.newFixedThreadPool(threadCount, factory);
  }

  /** Runs {@code call} on a worker; whoever ends it says so with {@link #callEnded}. */
  public void execute(Runnable call) {
    callStarted();
    threads.execute(call);
  }

  /** Counts a call that needs no worker. */
  public void callStarted() {
    calls.incrementAndGet();
  }

  public void callEnded() {
    if (calls.decrementAndGet() == 0) {
      lock.lock();
      try {
        quiet.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  /** Calls that have not come back. */
  public long callsInProgress() {
    return calls.get();
  }

  /**
   * Waits until no call is in progress.
   *
   * @return false when {@code nanos} passed before
   */
  public boolean awaitQuiet(long nanos) throws InterruptedException {
    lock.lock();
    try {
      long left = nanos;
      while (calls.get() > 0) {
        if (left <= 0) {
          return false;
        }
        left = quiet.awaitNanos(left);
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** Takes no more calls and lets the threads end when they are done. */
  public void shutdown() {
    threads.shutdown();
  }
}
