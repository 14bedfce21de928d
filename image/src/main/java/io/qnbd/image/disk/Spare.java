package io.qnbd.image.disk;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Threads that decompress beside the one that reads: as many as there are processors, for all
 * images, and none while there is nothing to do. Work is not queued: who finds no thread idle does
 * it himself, or leaves it.
 *
 * <p>Thread-safe. The threads are never interrupted, since they read files.
 */
final class Spare {
  private static final int THREADS_MAX = Runtime.getRuntime().availableProcessors();
  private static final long KEEP_SECONDS = 10;

  private static final ThreadPoolExecutor THREADS =
      new ThreadPoolExecutor(
          0, THREADS_MAX, KEEP_SECONDS, TimeUnit.SECONDS, new SynchronousQueue<>(), Spare::thread);

  private Spare() {}

  private static Thread thread(Runnable work) {
    return Thread.ofPlatform().daemon().name("decompress").unstarted(work);
  }

  /** Runs the work on another thread, if one is idle. */
  static boolean tryRun(Runnable work) {
    try {
      THREADS.execute(work);
      return true;
    } catch (RejectedExecutionException _) {
      return false;
    }
  }

  /** One of many pieces of work that don't depend on each other. */
  interface Piece {
    void run(int index) throws IOException;
  }

  /**
   * Runs pieces 0 to {@code count - 1}, here and on threads that are idle, and returns when all are
   * done. The first failure is thrown once nothing runs any more.
   */
  static void runAll(int count, Piece piece) throws IOException {
    AtomicInteger next = new AtomicInteger();
    CountDownLatch open = new CountDownLatch(count);
    AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();
    Runnable worker =
        () -> {
          for (int index = next.getAndIncrement(); index < count; index = next.getAndIncrement()) {
            try {
              if (failure.get() == null) {
                piece.run(index);
              }
            } catch (IOException | RuntimeException | Error e) {
              failure.compareAndSet(null, e);
            } finally {
              open.countDown();
            }
          }
        };
    // A helper that comes late finds no piece left and touches nothing.
    for (int helpers = Math.min(count, THREADS_MAX) - 1; helpers > 0; helpers--) {
      if (!tryRun(worker)) {
        break;
      }
    }
    worker.run();
    await(open);
    switch (failure.get()) {
      case null -> {}
      case IOException e -> throw e;
      case RuntimeException e -> throw e;
      case Error e -> throw e;
      case Throwable e -> throw new AssertionError(e);
    }
  }

  private static void await(CountDownLatch open) {
    boolean interrupted = false;
    while (true) {
      try {
        open.await();
        break;
      } catch (InterruptedException _) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
