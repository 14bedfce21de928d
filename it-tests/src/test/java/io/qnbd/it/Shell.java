package io.qnbd.it;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/**
 * Runs commands of the machine with their output kept.
 *
 * <p>No command outlives the tests: each has a longest life, and what is still running when this
 * JVM ends is killed.
 */
public final class Shell {
  /** Longer than any single command of these tests takes on two busy cores. */
  private static final Duration LIFE_MAX = Duration.ofMinutes(8);

  private static final Duration PATIENCE = Duration.ofMinutes(3);

  private static final Set<Process> RUNNING = ConcurrentHashMap.newKeySet();

  static {
    Runtime.getRuntime()
        .addShutdownHook(new Thread(() -> RUNNING.forEach(Process::destroyForcibly)));
  }

  private Shell() {}

  /** Runs the command to its end and returns what it said, whatever its exit code. */
  public static Result run(String... command) {
    return run(PATIENCE, command);
  }

  /** Like {@link #run(String...)}; a command that takes longer fails the test. */
  public static Result run(Duration patience, String... command) {
    try (Running running = start(command)) {
      return running.await(patience);
    }
  }

  /** Runs the command, which must exit with 0, and returns its standard output. */
  public static String check(String... command) {
    return run(command).mustExit(0).out();
  }

  /** Starts the command; the caller closes what is returned. */
  public static Running start(String... command) {
    try {
      Path out = Files.createTempFile("qnbd-it", ".out");
      Path err = Files.createTempFile("qnbd-it", ".err");
      ProcessBuilder builder =
          new ProcessBuilder(command)
              .redirectInput(new File("/dev/null"))
              .redirectOutput(out.toFile())
              .redirectError(err.toFile());
      Map<String, String> environment = builder.environment();
      environment.put("LC_ALL", "C.UTF-8");
      environment.merge("PATH", "/usr/local/sbin:/usr/sbin:/sbin", (old, more) -> old + ":" + more);
      Process process = builder.start();
      RUNNING.add(process);
      Executor atEndOfLife =
          CompletableFuture.delayedExecutor(LIFE_MAX.toSeconds(), TimeUnit.SECONDS);
      atEndOfLife.execute(process::destroyForcibly);
      return new Running(List.of(command), process, out, err);
    } catch (IOException e) {
      throw new UncheckedIOException("starting " + Arrays.toString(command), e);
    }
  }

  /** Waits, for a state of the outside world that nothing announces. */
  public static void pause(Duration time) {
    try {
      Thread.sleep(time);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", e);
    }
  }

  /** A command that has ended. */
  public record Result(List<String> command, int exit, String out, String err) {

    /** Fails with the command's whole output unless it exited with {@code expected}. */
    public Result mustExit(int expected) {
      if (exit != expected) {
        throw new AssertionError("exit code " + exit + ", expected " + expected + "\n" + this);
      }
      return this;
    }

    @Override
    public String toString() {
      return "$ %s\nexit code %d\n-- stdout\n%s-- stderr\n%s"
          .formatted(String.join(" ", command), exit, out, err);
    }
  }

  /** A command that was started. Thread-safe. */
  public static final class Running implements AutoCloseable {
    private final List<String> command;
    private final Process process;
    private final Path out;
    private final Path err;

    private Running(List<String> command, Process process, Path out, Path err) {
      this.command = command;
      this.process = process;
      this.out = out;
      this.err = err;
    }

    public Process process() {
      return process;
    }

    /** What it wrote to standard output so far. */
    public String out() {
      return text(out);
    }

    /** What it wrote to standard error so far. */
    public String err() {
      return text(err);
    }

    /** Waits for the end; a command that takes longer is killed and fails the test. */
    public Result await(Duration patience) {
      try {
        if (!process.waitFor(patience.toMillis(), TimeUnit.MILLISECONDS)) {
          process.destroyForcibly();
          throw new AssertionError("still running after " + patience.toSeconds() + " s\n" + this);
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new AssertionError("interrupted while waiting for " + command, e);
      }
      return new Result(command, process.exitValue(), out(), err());
    }

    /** Sends the signal, named as kill does: TERM, INT, KILL. */
    public void signal(String name) {
      check("kill", "-" + name, Long.toString(process.pid()));
    }

    /** Kills the command if it is still running and forgets its output. */
    @Override
    public void close() {
      process.destroyForcibly();
      try {
        process.waitFor(10, TimeUnit.SECONDS); // its locks go when it does
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
      RUNNING.remove(process);
      try {
        Files.deleteIfExists(out);
        Files.deleteIfExists(err);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    @Override
    public String toString() {
      return "$ %s\n-- stdout\n%s-- stderr\n%s".formatted(String.join(" ", command), out(), err());
    }

    private static String text(Path file) {
      try {
        return new String(Files.readAllBytes(file), StandardCharsets.UTF_8);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }
}
