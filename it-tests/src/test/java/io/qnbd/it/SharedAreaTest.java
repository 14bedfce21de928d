package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;

/** The judge of the shared area sees what it is there to see. */
final class SharedAreaTest {
  private final SharedArea area = new SharedArea(0, 8, 10);

  private static void assertFound(String words, Runnable verification) {
    AssertionError found = assertThrows(AssertionError.class, verification::run);
    assertTrue(String.valueOf(found.getMessage()).contains(words), found::getMessage);
  }

  @Test
  void zeroesAndWritesInFlightAreFine() {
    int write = area.begin();
    long[] floors = area.floors(0, 2);
    area.verify(ByteBuffer.allocate(1024), 0, floors);
    area.verify(area.stamped(write, 0, 2), 0, floors);
  }

  @Test
  void eitherOfTwoWritesThatOverlapInTimeIsFine() {
    int first = area.begin();
    int second = area.begin();
    area.acknowledge(second, 3, 1);
    area.acknowledge(first, 3, 1);
    area.verify(area.stamped(first, 3, 1), 3, area.floors(3, 1));
    area.verify(area.stamped(second, 3, 1), 3, area.floors(3, 1));
  }

  @Test
  void staleWriteIsFound() {
    int first = area.begin();
    area.acknowledge(first, 3, 1);
    int second = area.begin();
    long[] early = area.floors(3, 1);
    area.acknowledge(second, 3, 1);
    area.verify(area.stamped(first, 3, 1), 3, early);
    assertFound("stale", () -> area.verify(area.stamped(first, 3, 1), 3, area.floors(3, 1)));
    assertFound("stale", () -> area.verify(ByteBuffer.allocate(512), 3, area.floors(3, 1)));
  }

  @Test
  void tornOrMisplacedSectorIsFound() {
    int first = area.begin();
    int second = area.begin();
    ByteBuffer torn = area.stamped(first, 1, 1);
    torn.put(256, area.stamped(second, 1, 1), 256, 256);
    assertFound("torn", () -> area.verify(torn, 1, area.floors(1, 1)));
    assertFound("torn", () -> area.verify(area.stamped(first, 2, 1), 1, area.floors(1, 1)));
  }

  @Test
  void bytesThatNobodyWroteAreFound() {
    assertFound("no write of ours", () -> area.verify(area.stamped(7, 0, 1), 0, area.floors(0, 1)));
  }
}
