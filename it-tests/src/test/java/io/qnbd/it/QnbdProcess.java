package io.qnbd.it;

import java.net.URI;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** A {@code qnbd serve} started by the real launcher, as a user starts it. */
public final class QnbdProcess implements AutoCloseable {
  private static final Pattern URI_PRINTED = Pattern.compile("nbds?(\\+unix)?://\\S+");
  private static final Duration READY_MAX = Duration.ofSeconds(60);

  /** What the product promises for a stop under load. */
  static final Duration STOP_MAX = Duration.ofSeconds(10);

  private final Shell.Running running;
  private final URI uri;

  private QnbdProcess(Shell.Running running, URI uri) {
    this.running = running;
    this.uri = uri;
  }

  /**
   * Starts {@code qnbd serve} on a free port of the loopback, unless the arguments say where, and
   * returns when it has said that it is ready. What {@code -Dqnbd.serve.options} names, separated
   * by blanks, such as {@code --fast-path off}, is given to each server whose arguments do not name
   * the first option of it.
   */
  public static QnbdProcess serve(String... arguments) {
    // Whoever started the tests in the background may have had SIGINT or SIGHUP ignored, and every
    // child inherits that; a person's terminal does not.
    List<String> command =
        new ArrayList<>(List.of("env", "--default-signal=INT,HUP", launcher(), "serve"));
    List<String> given = Arrays.asList(arguments);
    List<String> more = List.of(System.getProperty("qnbd.serve.options", "").strip().split(" +"));
    if (!more.equals(List.of("")) && !given.contains(more.getFirst())) {
      command.addAll(more);
    }
    if (!given.contains("--listen") && !given.contains("--unix")) {
      command.addAll(List.of("--listen", "127.0.0.1:0"));
    }
    command.addAll(given);
    Shell.Running running = Shell.start(command.toArray(String[]::new));
    try {
      return new QnbdProcess(running, awaitUri(running));
    } catch (Throwable e) {
      running.close();
      throw e;
    }
  }

  /** Runs any qnbd command to its end. */
  public static Shell.Result run(String... arguments) {
    List<String> command = new ArrayList<>(List.of(launcher()));
    command.addAll(Arrays.asList(arguments));
    return Shell.run(Duration.ofSeconds(60), command.toArray(String[]::new));
  }

  /** The repository's launcher, or the one that {@code -Dqnbd.launcher} names. */
  static String launcher() {
    return System.getProperty("qnbd.launcher", Repository.root().resolve("qnbd").toString());
  }

  /** Waits until it is ready, true, or has ended, false. */
  static boolean awaitReadyOrEnd(Shell.Running running) {
    long deadline = System.nanoTime() + READY_MAX.toNanos();
    while (System.nanoTime() < deadline) {
      boolean ended = !running.process().isAlive();
      if (printedUri(running) != null) {
        return true;
      }
      if (ended) {
        return false;
      }
      Shell.pause(Duration.ofMillis(10));
    }
    throw new AssertionError("not ready after " + READY_MAX.toSeconds() + " s\n" + running);
  }

  private static URI awaitUri(Shell.Running running) {
    boolean ready = awaitReadyOrEnd(running);
    URI uri = printedUri(running);
    if (!ready || uri == null) {
      throw new AssertionError(
          "ended with exit code %d before it was ready\n%s"
              .formatted(running.process().exitValue(), running));
    }
    return uri;
  }

  /** The address on a line of standard output that is complete, or null. */
  private static @Nullable URI printedUri(Shell.Running running) {
    String out = running.out();
    Matcher printed = URI_PRINTED.matcher(out);
    boolean complete = printed.find() && out.indexOf('\n', printed.end()) >= 0;
    return complete ? URI.create(printed.group()) : null;
  }

  /** The address that it printed. */
  public URI uri() {
    return uri;
  }

  /** The TCP port that it listens on. */
  public int port() {
    return uri.getPort();
  }

  /** The address of one of its exports. */
  public URI uri(String export) {
    return URI.create("nbd://127.0.0.1:" + port() + "/" + export);
  }

  /** Sends it a signal that it goes on after. */
  public void signal(String name) {
    running.signal(name);
  }

  /** What it wrote to standard error so far. */
  public String errors() {
    return running.err();
  }

  public long pid() {
    return running.process().pid();
  }

  /** Stops it as an operator does; it must exit with 0 within ten seconds and say nothing odd. */
  public void stop() {
    stop("TERM");
  }

  /** Like {@link #stop()} with TERM or INT. */
  public void stop(String signal) {
    stop(signal, 0);
  }

  /** The same where the exit code is to say that something could not be closed as it should. */
  public void stop(String signal, int exit) {
    running.signal(signal);
    Shell.Result result = running.await(STOP_MAX).mustExit(exit);
    if (result.err().contains("Exception") || result.err().contains("\tat ")) {
      throw new AssertionError("a stack trace on standard error\n" + result);
    }
  }

  /** Kills it without a chance to tidy up. */
  public void kill() {
    running.signal("KILL");
    running.await(STOP_MAX);
  }

  /** Ends it if a failed test left it running. */
  @Override
  public void close() {
    running.close();
  }

  @Override
  public String toString() {
    return running.toString();
  }
}
