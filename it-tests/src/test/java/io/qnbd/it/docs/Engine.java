package io.qnbd.it.docs;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.Repository;
import io.qnbd.it.Shell;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/** Runs the manual's commands for Docker, with the host's engine, in a directory of the user's. */
final class Engine {
  /** The longest builds an image without anything that an earlier one left. */
  private static final Duration PATIENCE = Duration.ofMinutes(7);

  private static final Duration READY_MAX = Duration.ofMinutes(1);

  private Engine() {}

  static void mustRun(String command) throws IOException {
    Path dir = Files.createTempDirectory("qnbd-docs");
    try {
      Files.createSymbolicLink(dir.resolve("docker"), Repository.root().resolve("docker"));
      Shell.check(
          "qemu-img", "create", "-q", "-f", "qcow2", dir.resolve("disk.qcow2").toString(), "1G");
      if (command.contains(" serve ")) {
        serve(dir, command);
      } else {
        Shell.Result ended = in(dir, command).await(PATIENCE).mustExit(0);
        if (command.contains(" up ")) {
          assertTrue(ended.out().contains("exercise: done"), ended::toString);
        }
      }
    } finally {
      Shell.check("rm", "-rf", dir.toString());
    }
  }

  private static void serve(Path dir, String command) throws IOException {
    Files.delete(dir.resolve("disk.qcow2"));
    String named = command.replace("docker run ", "docker run --name qnbd-docs-it ");
    try (Shell.Running server = in(dir, named)) {
      long deadline = System.nanoTime() + READY_MAX.toNanos();
      while (!server.out().contains("qnbd: serving ")) {
        assertTrue(server.process().isAlive() && System.nanoTime() < deadline, server::toString);
        Shell.pause(Duration.ofMillis(50));
      }
      Shell.check("nbdinfo", "nbd://127.0.0.1:10809");
      Shell.check("docker", "stop", "-t", "30", "qnbd-docs-it");
      server.await(PATIENCE).mustExit(0);
    } finally {
      Shell.run("docker", "rm", "--force", "qnbd-docs-it");
    }
    Shell.check("qemu-img", "check", dir.resolve("disk.qcow2").toString());
  }

  private static Shell.Running in(Path dir, String command) {
    return Shell.start("env", "-C", dir.toString(), "bash", "-ec", command);
  }
}
