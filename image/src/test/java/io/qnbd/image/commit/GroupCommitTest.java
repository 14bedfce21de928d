package io.qnbd.image.commit;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(value = 60, unit = TimeUnit.SECONDS)
final class GroupCommitTest {
  private final Semaphore started = new Semaphore(0);
  private final Semaphore mayEnd = new Semaphore(0);
  private final ConcurrentLinkedQueue<IOException> failures = new ConcurrentLinkedQueue<>();

  private void gatedRun() throws IOException {
    started.release();
    mayEnd.acquireUninterruptibly();
    IOException failure = failures.poll();
    if (failure != null) {
      throw failure;
    }
  }

  private static CompletableFuture<@Nullable Void> ask(GroupCommit commit) {
    return commit.request().toCompletableFuture();
  }

  @Test
  void requestsDuringARunShareTheNextOne() {
    try (GroupCommit commit = new GroupCommit("test", this::gatedRun)) {
      CompletableFuture<@Nullable Void> first = ask(commit);
      started.acquireUninterruptibly();
      List<CompletableFuture<@Nullable Void>> later = new ArrayList<>();
      for (int i = 0; i < 100; i++) {
        later.add(ask(commit));
      }
      mayEnd.release();
      first.join();
      started.acquireUninterruptibly();
      later.forEach(stage -> assertFalse(stage.isDone(), "covered by a run that started before"));
      mayEnd.release();
      later.forEach(CompletableFuture::join);
      assertEquals(2, commit.commits());
      assertEquals(101, commit.requests());
    }
  }

  @Test
  void failureReachesAllWaitersOfItsRunAndNoOthers() {
    try (GroupCommit commit = new GroupCommit("test", this::gatedRun)) {
      failures.add(new IOException("no"));
      CompletableFuture<@Nullable Void> failed = ask(commit);
      started.acquireUninterruptibly();
      CompletableFuture<@Nullable Void> good = ask(commit);
      mayEnd.release(2);
      CompletionException thrown = assertThrows(CompletionException.class, failed::join);
      assertInstanceOf(IOException.class, thrown.getCause());
      good.join();
    }
  }

  @Test
  void threadSurvivesABugInTheAction() {
    GroupCommit.Action bug =
        () -> {
          throw new AssertionError("bug");
        };
    try (GroupCommit commit = new GroupCommit("test", bug)) {
      assertThrows(CompletionException.class, ask(commit)::join);
      assertThrows(CompletionException.class, ask(commit)::join);
      assertEquals(2, commit.commits());
    }
  }

  @Test
  void closingRunsWhatIsPendingAndRefusesTheRest() throws InterruptedException {
    GroupCommit commit = new GroupCommit("sync of disk", this::gatedRun);
    CompletableFuture<@Nullable Void> first = ask(commit);
    started.acquireUninterruptibly();
    CompletableFuture<@Nullable Void> second = ask(commit);
    Thread closer = Thread.ofPlatform().start(commit::close);
    closer.join(20);
    assertTrue(closer.isAlive(), "closed while a request was pending");
    mayEnd.release(2);
    closer.join();
    first.join();
    second.join();
    CompletionException thrown = assertThrows(CompletionException.class, ask(commit)::join);
    assertEquals("java.io.IOException: sync of disk is closed", thrown.getMessage());
    commit.close();
  }

  @Test
  void closingUnusedOneStartsNoThread() {
    GroupCommit commit = new GroupCommit("unused committer", () -> {});
    commit.close();
    assertEquals(0, commit.commits());
  }

  @Test
  void callbackMayCloseWithoutWaitingForItself() {
    GroupCommit commit = new GroupCommit("test", () -> {});
    commit.request().thenRun(commit::close).toCompletableFuture().join();
    commit.close();
  }

  /** A completed request covers all that its caller did before. */
  @Test
  void everyRequestIsCoveredByALaterRun() throws InterruptedException {
    AtomicLong done = new AtomicLong();
    AtomicLong covered = new AtomicLong();
    AtomicLong violations = new AtomicLong();
    try (GroupCommit commit = new GroupCommit("test", () -> covered.set(done.get()))) {
      List<Thread> threads = new ArrayList<>();
      for (int t = 0; t < 4; t++) {
        Runnable work =
            () -> {
              for (int i = 0; i < 2000; i++) {
                long mine = done.incrementAndGet();
                ask(commit).join();
                if (covered.get() < mine) {
                  violations.incrementAndGet();
                }
              }
            };
        threads.add(Thread.ofPlatform().start(work));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertEquals(0, violations.get());
      assertEquals(8000, commit.requests());
      assertTrue(commit.commits() <= commit.requests());
    }
  }
}
