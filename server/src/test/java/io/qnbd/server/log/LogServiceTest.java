package io.qnbd.server.log;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.LoggerContext;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.LocalTime;
import java.util.TimeZone;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;
import org.junit.jupiter.api.parallel.Resources;
import org.slf4j.Logger;

@ResourceLock(Resources.SYSTEM_ERR)
class LogServiceTest {
  private static final Pattern LINE =
      Pattern.compile("\\d\\d:\\d\\d:\\d\\d\\.\\d{3} WARN  Thing - it broke: \u00e9\\R");

  private final PrintStream before = System.err;
  private final ByteArrayOutputStream written = new ByteArrayOutputStream();
  private final LogService service = new LogService();
  private final LoggerContext context = (LoggerContext) service.getLoggerFactory();
  private final Logger log = context.getLogger("io.qnbd.server.Thing");

  @BeforeEach
  void catchStandardError() {
    System.setErr(new PrintStream(written, true, StandardCharsets.UTF_8));
    service.initialize();
  }

  @AfterEach
  void giveItBack() {
    context.stop();
    System.setErr(before);
  }

  @Test
  void aWarningIsOneLineWithoutATrace() {
    log.info("it works");
    log.warn("it broke: \u00e9", new IOException("of the disk"));

    assertTrue(LINE.matcher(text()).matches(), text());
  }

  @Test
  void eventsAreToldOnDemandButNotNettysOwn() {
    LogService.tell(context, Level.INFO);

    log.debug("a detail");
    log.info("it works");
    context.getLogger("io.netty.Thing").info("a detail of Netty");

    assertEquals(1, text().lines().count(), text());
    assertTrue(text().endsWith("INFO  Thing - it works" + System.lineSeparator()), text());
  }

  @Test
  void everythingIsToldOnDemandWithTraces() {
    LogService.tell(context, Level.DEBUG);

    log.debug("a detail", new IOException("of the disk"));

    assertTrue(text().contains("DEBUG Thing - a detail"), text());
    assertTrue(text().contains("\tat " + getClass().getName()), text());
    assertTrue(text().lines().noneMatch(String::isBlank), text());
    assertTrue(text().endsWith(System.lineSeparator()), text());
  }

  private String text() {
    return written.toString(StandardCharsets.UTF_8);
  }

  @Test
  void timesAreThoseOfTheZoneOnTheirDay() {
    TimeZone berlin = TimeZone.getTimeZone("Europe/Berlin");
    TimeZone chicago = TimeZone.getTimeZone("America/Chicago");

    assertEquals(LocalTime.parse("01:59:59.999"), LogLine.localTime(1_785_542_399_999L, berlin));
    assertEquals(LocalTime.parse("18:59:59.999"), LogLine.localTime(1_785_542_399_999L, chicago));
    assertEquals(LocalTime.parse("01:00"), LogLine.localTime(1_796_083_200_000L, berlin));
    assertEquals(LocalTime.parse("18:00"), LogLine.localTime(1_796_083_200_000L, chicago));
  }
}
