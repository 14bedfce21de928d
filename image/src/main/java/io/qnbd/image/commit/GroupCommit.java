package io.qnbd.image.commit;

import java.io.IOException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs one action for any number of callers who wait for it, on a thread of its own.
 *
 * <p>A request is served by a run that starts after the request was made, so whatever its caller
 * did before is covered. Requests made while the action runs wait together for the next run.
 *
 * <pre>
 *            request                    take the waiters
 *   idle ---------------> pending ---------------------------> running
 *     ^                      ^  request during the run            |
 *     |                      +------------------------------------+
 *     +------------ run over, nobody waits -----------------------+
 *
 *   close, from any state: no request is accepted any more; what is pending still runs; then the
 *   thread ends.
 * </pre>
 *
 * <p>The stages of one run complete together on the committer thread, with the exception that the
 * action threw where it threw one. Callbacks run on that thread and hold up the next run, so they
 * must be short and must not wait for a stage of this object.
 *
 * <p>Thread-safe. The owner closes it before it closes what the action works on.
 */
public final class GroupCommit implements AutoCloseable {
  /** What the waiters wait for. */
  @FunctionalInterface
  public interface Action {
    void run() throws IOException;
  }

  private static final Logger LOG = LoggerFactory.getLogger(GroupCommit.class);

  /** A bound on what one caller may wait for others, in case a run took very long. */
  private static final long GATHER_NANOS_MAX = 2_000_000;

  private final String name;
  private final Action action;
  private final long idleNanos;
  private final @Nullable Action whenIdle;
  private final LongAdder commits = new LongAdder();
  private final LongAdder requests = new LongAdder();

  /** Guards the fields below; never held while the action or a callback runs. */
  private final ReentrantLock mutex = new ReentrantLock();

  private final Condition changed = mutex.newCondition();

  /** The stage of the next run, or null when nobody waits for one. */
  private @Nullable CompletableFuture<@Nullable Void> next;

  /** Requests that wait for the next run, and those that the last one served. */
  private int waiting;

  /** About how many callers ask at the same time, from the last runs. */
  private int expected;

  private long runNanosLast;
  private @Nullable Thread committer;
  private boolean closed;

  /** The committer thread is named {@code name} and starts with the first request. */
  public GroupCommit(String name, Action action) {
    this(name, action, Long.MAX_VALUE, null);
  }

  /**
   * The same, with something to do in between.
   *
   * @param whenIdle runs on the committer thread, once that has started, whenever there was no
   *     request for {@code idleNanos}; what it throws is logged
   */
  public GroupCommit(String name, Action action, long idleNanos, @Nullable Action whenIdle) {
    this.name = name;
    this.action = action;
    this.idleNanos = idleNanos;
    this.whenIdle = whenIdle;
  }

  /**
   * Asks for a run that starts after this call. Never blocks. Once closed, the stage has failed
   * already.
   */
  public CompletionStage<@Nullable Void> request() {
    requests.increment();
    mutex.lock();
    try {
      if (closed) {
        return CompletableFuture.failedFuture(new IOException(name + " is closed"));
      }
      if (committer == null) {
        committer = Thread.ofPlatform().name(name).daemon().start(this::serve);
      }
      waiting++;
      if (next == null) {
        next = new CompletableFuture<>();
        changed.signal();
      } else if (waiting == expected) {
        changed.signal();
      }
      return next;
    } finally {
      mutex.unlock();
    }
  }

  /** Runs of the action so far, the failed ones too. */
  public long commits() {
    return commits.sum();
  }

  /** Requests so far. */
  public long requests() {
    return requests.sum();
  }

  /**
   * Refuses further requests and waits until those that are pending are done and the thread has
   * ended. Called from a callback, it does not wait. Closing twice is harmless.
   */
  @Override
  public void close() {
    Thread thread;
    mutex.lock();
    try {
      closed = true;
      changed.signal();
      thread = committer;
    } finally {
      mutex.unlock();
    }
    if (thread == null || thread.equals(Thread.currentThread())) {
      return;
    }
    boolean interrupted = false;
    while (thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void serve() {
    CompletableFuture<@Nullable Void> run;
    while ((run = awaitRequest()) != null) {
      commits.increment();
      long start = System.nanoTime();
      try {
        action.run();
        noteDuration(System.nanoTime() - start);
      } catch (IOException | RuntimeException | Error e) {
        run.completeExceptionally(e); // the waiters handle it; the thread serves the next ones
        continue;
      }
      run.complete(null);
    }
  }

  private void noteDuration(long nanos) {
    mutex.lock();
    try {
      runNanosLast = nanos;
    } finally {
      mutex.unlock();
    }
  }

  /** Takes the waiters of the next run; null when closed and nobody waits. */
  private @Nullable CompletableFuture<@Nullable Void> awaitRequest() {
    mutex.lock();
    try {
      long nanosLeft = idleNanos;
      while (next == null && !closed) {
        if (whenIdle != null && nanosLeft <= 0) {
          runWhenIdle(whenIdle);
          nanosLeft = idleNanos;
        } else {
          nanosLeft = awaitChange(nanosLeft);
        }
      }
      gather();
      CompletableFuture<@Nullable Void> run = next;
      next = null;
      expected = Math.max(waiting, expected - expected / 4 - 1);
      waiting = 0;
      return run;
    } finally {
      mutex.unlock();
    }
  }

  /**
   * Waits a little for company. Callers who wait together are served together, and ask again at
   * about the same time; a run that started with the first of them would serve it alone. So the
   * next run waits for as many as the last one had, but not longer than half of what that one took.
   */
  private void gather() {
    long nanosLeft = Math.min(runNanosLast, GATHER_NANOS_MAX);
    while (waiting < expected && !closed && nanosLeft > 0) {
      nanosLeft = awaitChange(nanosLeft);
    }
  }

  /** Waits for a change, or for nothing; the caller looks. Returns what is left of the time. */
  @SuppressWarnings("WaitNotInLoop") // the caller's loop
  private long awaitChange(long nanos) {
    try {
      return changed.awaitNanos(nanos);
    } catch (InterruptedException e) {
      return nanos; // nobody ends this thread by an interrupt: close() does that
    }
  }

  private void runWhenIdle(Action idle) {
    mutex.unlock();
    try {
      idle.run();
    } catch (IOException e) {
      LOG.debug("{}: {}", name, e.getMessage());
    } finally {
      mutex.lock();
    }
  }
}
