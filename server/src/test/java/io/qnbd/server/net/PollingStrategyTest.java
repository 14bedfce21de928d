package io.qnbd.server.net;

import static io.netty.channel.SelectStrategy.SELECT;
import static io.qnbd.server.net.PollingStrategy.LOOKOUT_NANOS_MAX;
import static io.qnbd.server.net.PollingStrategy.LOOKOUT_NANOS_MIN;
import static io.qnbd.server.net.PollingStrategy.SHORT_WAIT_NANOS_MAX;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.util.IntSupplier;
import org.junit.jupiter.api.Test;

/** A loop's sleeps and what it does before them, with a clock that moves only as the test says. */
final class PollingStrategyTest {
  /** How long one question for events takes. */
  private static final long QUESTION_NANOS = 100;

  private long calls;
  private final PollingStrategy.Lookouts lookouts = new PollingStrategy.Lookouts(1, () -> calls);
  private final PollingStrategy strategy = strategy();
  private long now;
  private boolean hasTasks;

  private PollingStrategy strategy() {
    return new PollingStrategy(lookouts, () -> hasTasks, () -> now);
  }

  /** Events after {@code nanos}. */
  private IntSupplier events(long nanos) {
    long start = now;
    return () -> {
      now += QUESTION_NANOS;
      return now - start > nanos ? 3 : 0;
    };
  }

  private IntSupplier none() {
    return events(Long.MAX_VALUE);
  }

  /** How long the loop looks out when nothing comes for {@code waitNanos}; then it is woken. */
  private long lookoutNanos(long waitNanos) throws Exception {
    long start = now;
    assertEquals(SELECT, strategy.calculateStrategy(none(), false));
    long lookout = now - start;
    now = start + waitNanos;
    return lookout;
  }

  /** Lets the loop be woken soon until it looks out for as long as it ever does. */
  private void wakeSoonAndOften() throws Exception {
    for (int i = 0; i < 5; i++) {
      assertTrue(lookoutNanos(SHORT_WAIT_NANOS_MAX) <= LOOKOUT_NANOS_MAX);
    }
    assertEquals(LOOKOUT_NANOS_MAX, lookoutNanos(SHORT_WAIT_NANOS_MAX));
  }

  @Test
  void aLoopThatWaitsLongDoesNotLookOut() throws Exception {
    for (int i = 0; i < 5; i++) {
      assertEquals(0, lookoutNanos(SHORT_WAIT_NANOS_MAX + 1));
    }
  }

  @Test
  void afterAShortWaitItLooksOutAndFindsWhatComes() throws Exception {
    assertEquals(0, lookoutNanos(SHORT_WAIT_NANOS_MAX));
    assertEquals(3, strategy.calculateStrategy(events(LOOKOUT_NANOS_MIN / 2), false));
    wakeSoonAndOften();
    assertEquals(3, strategy.calculateStrategy(events(LOOKOUT_NANOS_MAX / 2), false));
  }

  @Test
  void eachLongWaitHalvesTheNextLookoutUntilThereIsNone() throws Exception {
    wakeSoonAndOften();
    assertEquals(LOOKOUT_NANOS_MAX, lookoutNanos(SHORT_WAIT_NANOS_MAX + 1));
    assertEquals(LOOKOUT_NANOS_MAX / 2, lookoutNanos(SHORT_WAIT_NANOS_MAX + 1));
    assertEquals(LOOKOUT_NANOS_MAX / 4, lookoutNanos(SHORT_WAIT_NANOS_MAX + 1));
    assertEquals(LOOKOUT_NANOS_MIN, lookoutNanos(SHORT_WAIT_NANOS_MAX + 1));
    assertEquals(0, lookoutNanos(SHORT_WAIT_NANOS_MAX + 1));
  }

  @Test
  void whatTheLoopFindsAtOnceSaysNothingOfItsWaits() throws Exception {
    wakeSoonAndOften();
    for (int i = 0; i < 9; i++) {
      assertEquals(3, strategy.calculateStrategy(() -> 3, false));
      now += SHORT_WAIT_NANOS_MAX + 1; // the loop is busy with them
    }
    assertEquals(LOOKOUT_NANOS_MAX, lookoutNanos(0));
  }

  @Test
  void aTaskOfAnotherThreadEndsTheLookout() throws Exception {
    wakeSoonAndOften();
    IntSupplier task =
        () -> {
          hasTasks = true;
          return 0;
        };
    assertEquals(0, strategy.calculateStrategy(task, false));
    assertEquals(3, strategy.calculateStrategy(() -> 3, true));
  }

  @Test
  void aCallInAnImageTakesALookoutsPlace() throws Exception {
    wakeSoonAndOften();
    calls = 1;
    assertEquals(0, lookoutNanos(SHORT_WAIT_NANOS_MAX));
    calls = 0;
    assertEquals(LOOKOUT_NANOS_MAX, lookoutNanos(SHORT_WAIT_NANOS_MAX));
  }

  @Test
  void noMoreLoopsLookOutThanThereArePlaces() throws Exception {
    wakeSoonAndOften();
    PollingStrategy other = strategy();
    assertEquals(SELECT, other.calculateStrategy(none(), false));
    now += SHORT_WAIT_NANOS_MAX;
    IntSupplier unasked =
        () -> {
          throw new AssertionError("looks out, too");
        };
    IntSupplier meanwhile =
        () -> {
          assertEquals(SELECT, other.calculateStrategy(unasked, false));
          return 1;
        };
    assertEquals(1, strategy.calculateStrategy(meanwhile, false));
    // The place is free again.
    assertEquals(3, other.calculateStrategy(events(LOOKOUT_NANOS_MIN / 2), false));
  }
}
