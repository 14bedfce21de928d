package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(value = 60, unit = TimeUnit.SECONDS)
final class RangeLockTest {
  private final RangeLock lock = new RangeLock();

  @Test
  void sharedRangesOverlap() {
    RangeLock.Hold one = take(0, 10, false);
    RangeLock.Hold two = take(5, 15, false);
    lock.release(one);
    lock.release(two);
    assertEquals(0, lock.size());
  }

  @Test
  void exclusiveRangeKeepsOthersOutToItsLastUnit() {
    RangeLock.Hold held = take(10, 20, true);
    assertNull(lock.tryAcquire(20, 30, false));
    assertNull(lock.tryAcquire(0, 10, true));
    assertNull(lock.tryAcquire(12, 12, false));
    lock.release(take(21, 30, true));
    lock.release(take(0, 9, true));
    lock.release(held);
    lock.release(take(0, Long.MAX_VALUE, true));
  }

  @Test
  void sharedRangeKeepsExclusiveOnesOut() {
    RangeLock.Hold held = take(10, 20, false);
    assertNull(lock.tryAcquire(15, 15, true));
    lock.release(held);
    lock.release(take(15, 15, true));
  }

  @Test
  void sharedRequestDoesNotOvertakeWaitingExclusiveOne() throws InterruptedException {
    RangeLock.Hold held = take(0, 9, false);
    List<String> order = new CopyOnWriteArrayList<>();
    Thread writer = start("writer", 5, 14, true, order);
    assertNull(lock.tryAcquire(5, 5, false), "the waiting writer was overtaken");
    assertNull(lock.tryAcquire(14, 14, false), "the waiting writer was overtaken");
    lock.release(take(0, 4, false)); // conflicts with nobody
    Thread reader = start("reader", 14, 20, false, order);
    assertEquals(List.of(), order);
    lock.release(held);
    writer.join();
    reader.join();
    assertEquals(List.of("writer", "reader"), order);
  }

  @Test
  void conflictingRequestsAreGrantedInOrderOfArrival() throws InterruptedException {
    RangeLock.Hold held = take(0, 0, true);
    List<String> order = new CopyOnWriteArrayList<>();
    List<Thread> threads = new ArrayList<>();
    List<String> expected = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      expected.add("t" + i);
      threads.add(start("t" + i, 0, i, true, order));
    }
    lock.release(held);
    for (Thread thread : threads) {
      thread.join();
    }
    assertEquals(expected, order);
  }

  @Test
  void interruptDoesNotEndTheWaitAndStaysPending() throws InterruptedException {
    RangeLock.Hold held = take(0, 0, true);
    AtomicReference<@Nullable String> seen = new AtomicReference<>();
    Thread waiter =
        Thread.ofPlatform()
            .start(() -> {
              lock.release(lock.acquire(0, 0, true));
              seen.set("interrupted " + Thread.currentThread().isInterrupted());
            });
    awaitSize(2);
    waiter.interrupt();
    waiter.join(50);
    assertNull(seen.get());
    lock.release(held);
    waiter.join();
    assertEquals("interrupted true", seen.get());
  }

  @Test
  void releasingTwiceIsABug() {
    RangeLock.Hold held = take(0, 0, true);
    lock.release(held);
    assertThrows(AssertionError.class, () -> lock.release(held));
  }

  /** Every unit counts its holders: one writer alone or any number of readers. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 20261122})
  void neverGrantsConflictingRangesTogether(long seed) throws InterruptedException {
    final int units = 24;
    AtomicInteger[] holders = new AtomicInteger[units];
    for (int i = 0; i < units; i++) {
      holders[i] = new AtomicInteger();
    }
    List<String> violations = new CopyOnWriteArrayList<>();
    List<Thread> threads = new ArrayList<>();
    for (int t = 0; t < 6; t++) {
      Random random = new Random(seed * 31 + t);
      boolean virtual = t % 2 == 1;
      Thread.Builder builder = virtual ? Thread.ofVirtual() : Thread.ofPlatform();
      threads.add(builder.start(() -> contend(random, holders, violations)));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertEquals(List.of(), violations, "seed " + seed);
    assertEquals(0, lock.size(), "seed " + seed);
  }

  private void contend(Random random, AtomicInteger[] holders, List<String> violations) {
    for (int step = 0; step < 4000; step++) {
      int first = random.nextInt(holders.length);
      int last = Math.min(holders.length - 1, first + random.nextInt(6));
      boolean exclusive = random.nextInt(3) == 0;
      RangeLock.Hold hold =
          random.nextInt(4) == 0
              ? lock.tryAcquire(first, last, exclusive)
              : lock.acquire(first, last, exclusive);
      if (hold == null) {
        continue;
      }
      int weight = exclusive ? 1000 : 1;
      for (int i = first; i <= last; i++) {
        int before = holders[i].getAndAdd(weight);
        if (exclusive ? before != 0 : before >= 1000) {
          violations.add("unit " + i + " had " + before + " when granting " + hold);
        }
      }
      if (random.nextInt(8) == 0) {
        LockSupport.parkNanos(1000);
      }
      for (int i = first; i <= last; i++) {
        holders[i].addAndGet(-weight);
      }
      lock.release(hold);
    }
  }

  private RangeLock.Hold take(long first, long last, boolean exclusive) {
    RangeLock.Hold hold = lock.tryAcquire(first, last, exclusive);
    assertNotNull(hold);
    return hold;
  }

  private Thread start(String name, long first, long last, boolean exclusive, List<String> order)
      throws InterruptedException {
    int before = lock.size();
    Thread thread =
        Thread.ofPlatform()
            .start(() -> {
              RangeLock.Hold hold = lock.acquire(first, last, exclusive);
              order.add(name);
              lock.release(hold);
            });
    awaitSize(before + 1);
    assertTrue(thread.isAlive());
    assertFalse(order.contains(name));
    return thread;
  }

  private void awaitSize(int size) throws InterruptedException {
    while (lock.size() != size) {
      Thread.sleep(1);
    }
  }
}
