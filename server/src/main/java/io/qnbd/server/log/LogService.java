package io.qnbd.server.log;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.classic.util.LogbackMDCAdapter;
import ch.qos.logback.core.ConsoleAppender;
import ch.qos.logback.core.encoder.LayoutWrappingEncoder;
import java.nio.charset.StandardCharsets;
import org.slf4j.ILoggerFactory;
import org.slf4j.IMarkerFactory;
import org.slf4j.LoggerFactory;
import org.slf4j.helpers.BasicMarkerFactory;
import org.slf4j.spi.MDCAdapter;
import org.slf4j.spi.SLF4JServiceProvider;

/**
 * Logback, set up by code: standard output belongs to what a command answers, so the log goes to
 * standard error, one line for each event. Logback's own way to the same, a search of all libraries
 * for services and a file of XML, takes a good part of a server's start.
 *
 * <p>Thread-safe once it is in use.
 */
public final class LogService implements SLF4JServiceProvider {
  private final LoggerContext context = new LoggerContext();
  private final IMarkerFactory markers = new BasicMarkerFactory();
  private final LogbackMDCAdapter diagnostics = new LogbackMDCAdapter();

  /** Chooses this service for the process, before anything makes a logger. */
  public static void choose() {
    System.setProperty(LoggerFactory.PROVIDER_PROPERTY_KEY, LogService.class.getName());
    // Else slf4j tells that it was told so.
    System.setProperty("slf4j.internal.verbosity", "WARN");
  }

  /**
   * Logs more than what goes wrong. Has no effect when the process uses another service.
   *
   * @param all everything, with the traces of exceptions; else what happens
   */
  public static void tellMore(boolean all) {
    if (LoggerFactory.getILoggerFactory() instanceof LoggerContext context) {
      tell(context, all ? Level.DEBUG : Level.INFO);
    }
  }

  @Override
  public void initialize() {
    context.setName("default");
    context.setMDCAdapter(diagnostics);
    tell(context, Level.WARN);
    context.start();
  }

  static void tell(LoggerContext context, Level level) {
    context.reset();
    LogLine line = new LogLine(level == Level.DEBUG);
    line.setContext(context);
    line.start();
    LayoutWrappingEncoder<ILoggingEvent> encoder = new LayoutWrappingEncoder<>();
    encoder.setContext(context);
    encoder.setCharset(StandardCharsets.UTF_8);
    encoder.setLayout(line);
    encoder.start();
    ConsoleAppender<ILoggingEvent> appender = new ConsoleAppender<>();
    appender.setContext(context);
    appender.setName("stderr");
    appender.setTarget("System.err");
    appender.setEncoder(encoder);
    appender.start();
    var root = context.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
    root.setLevel(level);
    root.addAppender(appender);
    context.getLogger("io.netty").setLevel(Level.WARN);
  }

  @Override
  public ILoggerFactory getLoggerFactory() {
    return context;
  }

  @Override
  public IMarkerFactory getMarkerFactory() {
    return markers;
  }

  @Override
  public MDCAdapter getMDCAdapter() {
    return diagnostics;
  }

  /** The release of slf4j's interface that this was written for, as it asks. */
  @Override
  public String getRequestedApiVersion() {
    return "2.0.99";
  }
}
