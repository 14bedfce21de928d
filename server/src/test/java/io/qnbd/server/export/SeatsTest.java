package io.qnbd.server.export;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class SeatsTest {
  private final Seats seats = new Seats();

  private static ExportSettings limits(int all, int each) {
    return new ExportSettings("a", "", false, Set.of(), all, each, RateLimits.NONE);
  }

  @Test
  void withoutLimitsThereIsAlwaysASeat() {
    for (int i = 0; i < 10_000; i++) {
      assertTrue(seats.take(limits(0, 0), "x"));
    }
  }

  @Test
  void neitherOneClientNorAllGetMoreThanTheirLimit() {
    ExportSettings settings = limits(3, 2);
    assertTrue(seats.take(settings, "x"));
    assertTrue(seats.take(settings, "x"));
    assertFalse(seats.take(settings, "x"));
    assertTrue(seats.refusal(settings, "x").orElseThrow().contains("this client has 2"));
    assertEquals(Optional.empty(), seats.refusal(settings, "y"));
    assertTrue(seats.take(settings, "y"));
    assertFalse(seats.take(settings, "z"));
    assertTrue(seats.refusal(settings, "z").orElseThrow().contains("the export has 3"));
    seats.leave("x");
    assertTrue(seats.take(settings, "z"));
    seats.leave("x");
    seats.leave("y");
    seats.leave("z");
    assertThrows(AssertionError.class, () -> seats.leave("x"));
  }

  @Test
  void aLowerLimitSendsNobodyAwayAndLetsNobodyIn() {
    assertTrue(seats.take(limits(0, 0), "x"));
    assertTrue(seats.take(limits(0, 0), "x"));
    assertFalse(seats.take(limits(1, 0), "y"));
    seats.leave("x");
    assertFalse(seats.take(limits(1, 0), "y"));
    seats.leave("x");
    assertTrue(seats.take(limits(1, 0), "y"));
  }
}
