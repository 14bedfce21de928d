package io.qnbd.server.log;

import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.classic.spi.IThrowableProxy;
import ch.qos.logback.classic.spi.ThrowableProxyUtil;
import ch.qos.logback.core.CoreConstants;
import ch.qos.logback.core.LayoutBase;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;

/**
 * An event as one line: local time, level, the last part of the logger's name, the message; below
 * it the trace of an exception, if traces are wanted. Logback's own layout asks for the time zone
 * when it is made, for which Java opens every library, a tenth of a second of a server's start;
 * here the first line asks.
 *
 * <p>Thread-safe.
 */
final class LogLine extends LayoutBase<ILoggingEvent> {
  private final boolean traces;

  /** A line of a log. {@code traces} says whether exceptions are told with their traces. */
  LogLine(boolean traces) {
    this.traces = traces;
  }

  @Override
  public String doLayout(ILoggingEvent event) {
    StringBuilder line = new StringBuilder(128);
    Clock.TIME.formatTo(Instant.ofEpochMilli(event.getTimeStamp()).atZone(Clock.ZONE), line);
    String name = event.getLoggerName();
    line.append(" %-5s ".formatted(event.getLevel()))
        .append(name, name.lastIndexOf('.') + 1, name.length())
        .append(" - ")
        .append(event.getFormattedMessage())
        .append(CoreConstants.LINE_SEPARATOR);
    IThrowableProxy exception = event.getThrowableProxy();
    if (traces && exception != null) {
      line.append(ThrowableProxyUtil.asString(exception)); // with the end of its last line
    }
    return line.toString();
  }

  /** Loaded by the first line. */
  private static final class Clock {
    static final ZoneId ZONE = ZoneId.systemDefault();
    static final DateTimeFormatter TIME = DateTimeFormatter.ofPattern("HH:mm:ss.SSS");
  }
}
