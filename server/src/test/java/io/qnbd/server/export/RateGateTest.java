package io.qnbd.server.export;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class RateGateTest {
  private static final long SECOND = 1_000_000_000;

  /** Wraps during the tests. */
  private final AtomicLong now = new AtomicLong(Long.MAX_VALUE - SECOND / 2);

  private RateGate gate(long bytesPerSecond, long requestsPerSecond) {
    return new RateGate(new RateLimits(bytesPerSecond, requestsPerSecond), now::get);
  }

  /** Waits as it is told to, until the request is let through; returns how long that took. */
  private long take(RateGate gate, long bytes) {
    long start = now.get();
    for (long wait = gate.tryTake(bytes); wait > 0; wait = gate.tryTake(bytes)) {
      now.addAndGet(wait);
    }
    return now.get() - start;
  }

  @Test
  void withoutLimitsNobodyWaits() {
    RateGate gate = gate(0, 0);
    for (int i = 0; i < 1000; i++) {
      assertEquals(0, gate.tryTake(Long.MAX_VALUE));
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 512, 4096, 1 << 20, 64 << 20})
  void bytesFlowAtTheirRateWhateverTheRequestsSize(long bytes) {
    long rate = 10 << 20;
    RateGate gate = gate(rate, 0);
    long requests = Math.max(8, 20 * rate / bytes);
    long start = now.get();
    for (long i = 0; i < requests; i++) {
      take(gate, bytes);
    }
    // The last request is paid for by the next one.
    double paid = (requests - 1.0) * bytes;
    double nanos = now.get() - start + (double) RateGate.BURST_NANOS;
    assertTrue(paid <= nanos * rate / SECOND + bytes, "too fast: " + nanos);
    assertTrue(paid * 1.01 + rate >= nanos * rate / SECOND - bytes, "too slow: " + nanos);
  }

  @Test
  void requestsFlowAtTheirRate() {
    RateGate gate = gate(0, 100);
    long start = now.get();
    for (int i = 0; i < 1025; i++) {
      take(gate, 1 << 20);
    }
    // A quarter of a second, 25 requests, was there at the start, and one more goes on credit.
    assertEquals(10 * SECOND - SECOND / 100, now.get() - start);
  }

  @Test
  void theNarrowerOfTwoLimitsCounts() {
    RateGate gate = gate(1000, 10);
    take(gate, 5000);
    assertEquals(5 * SECOND - RateGate.BURST_NANOS, gate.tryTake(0));
    now.addAndGet(5 * SECOND);
    for (int i = 0; i < 3; i++) {
      assertEquals(0, gate.tryTake(0), "credit for requests");
    }
    assertTrue(gate.tryTake(0) > 0);
  }

  @Test
  void whoMustWaitIsNotCounted() {
    RateGate gate = gate(1000, 0);
    take(gate, 2000);
    long wait = gate.tryTake(1_000_000);
    assertEquals(wait, gate.tryTake(1_000_000));
    now.addAndGet(wait - 1);
    assertEquals(1, gate.tryTake(1));
    now.addAndGet(1);
    assertEquals(0, gate.tryTake(1));
  }

  @Test
  void idlenessIsSavedUpToTheBurstOnly() {
    RateGate gate = gate(0, 100);
    take(gate, 0);
    now.addAndGet(3600 * SECOND);
    int through = 0;
    while (gate.tryTake(0) == 0) {
      through++;
    }
    assertEquals(26, through);
  }

  @Test
  void aHugeRequestAtATinyRateIsPaidForWithoutAnOverflow() {
    RateGate gate = gate(1, 1);
    assertEquals(0, gate.tryTake(Long.MAX_VALUE));
    long wait = gate.tryTake(1);
    assertTrue(wait > 300 * 86_400 * SECOND, "about a year: " + wait);
  }

  @Test
  void newLimitsForgetTheDebtAndTheSameOnesDoNot() {
    RateGate gate = gate(1, 0);
    take(gate, 1000);
    gate.limit(new RateLimits(1, 0));
    assertTrue(gate.tryTake(1) > 0);
    gate.limit(new RateLimits(2, 0));
    assertEquals(0, gate.tryTake(1000));
    assertTrue(gate.tryTake(1) > 0);
    gate.limit(RateLimits.NONE);
    assertEquals(0, gate.tryTake(1));
  }

  @Test
  void negativeAmountsAreRefused() {
    RateGate gate = gate(1, 1);
    assertThrows(IllegalArgumentException.class, () -> gate.tryTake(-1));
    assertThrows(IllegalArgumentException.class, () -> new RateLimits(-1, 0));
    assertThrows(IllegalArgumentException.class, () -> new RateLimits(0, -1));
  }

  /** The clock stands still, so what is let through is the burst however many ask. */
  @Test
  void manyThreadsGetNoMoreThanOne() throws InterruptedException {
    RateGate gate = gate(0, 10_000);
    AtomicInteger through = new AtomicInteger();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                while (gate.tryTake(1) == 0) {
                  through.incrementAndGet();
                }
              }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertEquals(2501, through.get());
  }
}
