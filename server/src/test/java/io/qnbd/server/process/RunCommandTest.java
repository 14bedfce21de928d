package io.qnbd.server.process;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@Timeout(120)
final class RunCommandTest {
  private static final Duration PATIENCE = Duration.ofSeconds(30);

  @TempDir private Path directory = Path.of("");

  private static RunCommand run(String command, Map<String, String> variables, CountDownLatch ended)
      throws IOException {
    return RunCommand.start(command, variables, ended::countDown);
  }

  @ParameterizedTest
  @CsvSource({"exit 0, 0", "exit 7, 7", "kill -KILL $$, 137", "kill -TERM $$, 143"})
  void statusIsTheShells(String command, int status) throws Exception {
    CountDownLatch ended = new CountDownLatch(1);
    RunCommand running = run(command + " 2>/dev/null", Map.of(), ended);
    assertTrue(ended.await(30, TimeUnit.SECONDS));
    assertEquals(status, running.end());
  }

  @Test
  void variablesAreTakenAsTheyAre() throws Exception {
    Path out = directory.resolve("out");
    String odd = "a b'c\"d$e`f;g\\h*";
    CountDownLatch ended = new CountDownLatch(1);
    run(
        "printf '%s|%s|%s' \"$uri\" \"$empty\" \"${tls-unset}\" >" + out,
        Map.of("uri", odd, "empty", ""),
        ended);
    assertTrue(ended.await(30, TimeUnit.SECONDS));
    assertEquals(odd + "||unset", Files.readString(out));
  }

  @Test
  void commandMayTidyUpWhenItIsAskedToEnd() throws Exception {
    Path started = directory.resolve("started");
    RunCommand running =
        run(
            "trap 'exit 5' TERM; sleep 100 & echo >" + started + "; wait",
            Map.of(),
            new CountDownLatch(1));
    awaitFile(started);
    assertTrue(running.terminate(PATIENCE));
    assertEquals(5, running.end());
  }

  /** The pipe ends when the last process that has it open for writing has. */
  @Test
  void whatTheCommandHasStartedIsAskedToo() throws Exception {
    Path pipe = directory.resolve("pipe");
    CountDownLatch ended = new CountDownLatch(1);
    run("mkfifo " + pipe, Map.of(), ended);
    assertTrue(ended.await(30, TimeUnit.SECONDS));
    RunCommand running =
        run("sh -c 'exec sleep 100 >" + pipe + "'; exit 6", Map.of(), new CountDownLatch(1));
    try (InputStream in = Files.newInputStream(pipe)) {
      assertTrue(running.terminate(PATIENCE));
      assertEquals(-1, in.read());
    }
    // The shell ends by the signal, unless it sees its child's end first.
    int status = running.end();
    assertTrue(status == 143 || status == 6, "status " + status);
  }

  @Test
  void commandThatDoesNotEndIsKilled() throws Exception {
    Path started = directory.resolve("started");
    RunCommand running =
        run(
            "trap '' TERM; echo >" + started + "; while :; do sleep 100; done",
            Map.of(),
            new CountDownLatch(1));
    awaitFile(started);
    assertFalse(running.terminate(Duration.ofMillis(200)));
    assertEquals(137, running.end());
  }

  private static void awaitFile(Path file) throws InterruptedException {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (!Files.exists(file)) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError("the command has not come to " + file);
      }
      Thread.sleep(5);
    }
  }
}
