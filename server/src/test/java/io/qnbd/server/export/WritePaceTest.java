package io.qnbd.server.export;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

final class WritePaceTest {
  private final long begin = System.nanoTime();

  private final WritePace pace = new WritePace();

  @Test
  void quickWritesGoOn() {
    assertTrue(pace.allows(begin));
    pace.wrote(begin, begin + WritePace.SLOW_NANOS);
    assertTrue(pace.allows(begin + WritePace.SLOW_NANOS));
  }

  @Test
  void aSlowWriteEndsThemForAWhile() {
    long end = begin + WritePace.SLOW_NANOS + 1;
    pace.wrote(begin, end);
    assertFalse(pace.allows(end));
    assertFalse(pace.allows(end + WritePace.PAUSE_NANOS - 1));
    assertTrue(pace.allows(end + WritePace.PAUSE_NANOS));
  }
}
