package io.qnbd.server.log;

import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.classic.spi.IThrowableProxy;
import ch.qos.logback.classic.spi.ThrowableProxyUtil;
import ch.qos.logback.core.CoreConstants;
import ch.qos.logback.core.LayoutBase;
import java.time.LocalTime;
import java.util.Locale;
import java.util.TimeZone;
import java.util.concurrent.TimeUnit;

/**
 * An event as one line: local time, level, the last part of the logger's name, the message; below
 * it the trace of an exception, if traces are wanted. Logback's own layout asks {@link
 * java.time.ZoneId} for the time zone, which opens every library to look for more of them: a tenth
 * of a second of a server's start, or of an event loop that has something to say. {@link TimeZone}
 * knows the system's without.
 *
 * <p>Thread-safe.
 */
final class LogLine extends LayoutBase<ILoggingEvent> {
  private static final long DAY_MILLIS = TimeUnit.DAYS.toMillis(1);

  private final boolean traces;

  /** A line of a log. {@code traces} says whether exceptions are told with their traces. */
  LogLine(boolean traces) {
    this.traces = traces;
  }

  @Override
  public String doLayout(ILoggingEvent event) {
    StringBuilder line = new StringBuilder(128);
    LocalTime time = localTime(event.getTimeStamp(), TimeZone.getDefault());
    String name = event.getLoggerName();
    line.append(
            String.format(
                Locale.ROOT,
                "%02d:%02d:%02d.%03d %-5s ",
                time.getHour(),
                time.getMinute(),
                time.getSecond(),
                TimeUnit.NANOSECONDS.toMillis(time.getNano()),
                event.getLevel()))
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

  /** The time of day in {@code zone} at so many milliseconds after 1970-01-01T00:00Z. */
  static LocalTime localTime(long epochMillis, TimeZone zone) {
    long local = Math.floorMod(epochMillis + zone.getOffset(epochMillis), DAY_MILLIS);
    return LocalTime.ofNanoOfDay(TimeUnit.MILLISECONDS.toNanos(local));
  }
}
