package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

final class ProgressLineTest {
  private final StringWriter err = new StringWriter();
  private final AtomicLong millis = new AtomicLong();

  private ProgressLine line(boolean watched) {
    Terminal terminal =
        new Terminal(new PrintWriter(new StringWriter()), new PrintWriter(err), watched);
    return new ProgressLine(terminal, "a.qcow2", () -> TimeUnit.MILLISECONDS.toNanos(millis.get()));
  }

  @Test
  void whatIsOverWithinASecondIsNotShown() {
    try (ProgressLine line = line(true)) {
      millis.set(999);
      line.progress("counting", 1, 2);
    }
    assertEquals("", err.toString());
  }

  @Test
  void aPersonSeesOneLineThatIsWrittenOverAndGoesAway() {
    try (ProgressLine line = line(true)) {
      millis.set(1000);
      line.progress("counting", 1, 4);
      millis.set(1100);
      line.progress("counting", 2, 4);
      millis.set(1200);
      line.progress("counting", 3, 4);
    }
    assertEquals(
        "\rqnbd: a.qcow2: counting: 25%\u001b[K\rqnbd: a.qcow2: counting: 75%\u001b[K\r\u001b[K",
        err.toString());
  }

  @Test
  void aLogGetsALineAtTheBeginningAndOneAtTheEnd() {
    try (ProgressLine line = line(false)) {
      millis.set(1500);
      line.progress("counting", 0, 0);
      millis.set(2500);
      line.progress("counting", 2, 4);
      millis.set(3500);
    }
    assertEquals("qnbd: a.qcow2: counting: 100%\nqnbd: a.qcow2: ended after 3 s\n", err.toString());
  }
}
