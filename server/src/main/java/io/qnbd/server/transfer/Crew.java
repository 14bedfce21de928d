package io.qnbd.server.transfer;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/** Several threads that do the same until there is nothing left to do. */
final class Crew {
  private Crew() {}

  /** What each of them does. */
  interface Work {
    /**
     * Works until nothing is left, or until {@code stop} says so.
     *
     * @param stop whether another has failed
     */
    void run(Stop stop) throws IOException;
  }

  /** Asked before each piece of work. */
  interface Stop {
    boolean stopped();
  }

  /**
   * Runs {@code threads} of them, the caller among them, and throws what failed first. Returns when
   * none of them runs any more.
   */
  static void run(int threads, Work work) throws IOException {
    AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();
    CountDownLatch running = new CountDownLatch(threads);
    Stop stop = () -> failure.get() != null;
    Runnable member =
        () -> {
          try {
            work.run(stop);
          } catch (IOException | RuntimeException | Error e) {
            failure.compareAndSet(null, e);
          } finally {
            running.countDown();
          }
        };
    for (int i = 1; i < threads; i++) {
      Thread.ofPlatform().daemon().name("transfer " + i).start(member);
    }
    member.run();
    awaitAll(running);
    Throwable first = failure.get();
    if (first instanceof IOException e) {
      throw e;
    }
    if (first instanceof RuntimeException e) {
      throw e;
    }
    if (first instanceof Error e) {
      throw e;
    }
  }

  /** Not to be interrupted: they still use what the caller would close. */
  private static void awaitAll(CountDownLatch running) {
    boolean interrupted = false;
    while (true) {
      try {
        running.await();
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
