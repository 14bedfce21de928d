package io.qnbd.it.container;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.Shell;
import java.time.Duration;
import org.junit.jupiter.api.Test;

/** docker/compose.yml: fio, and bonnie++ on a file system, against a server beside them. */
final class ComposeIT {
  private static final Duration RUN_MAX = Duration.ofMinutes(6);

  private static Shell.Result compose(String... words) {
    String[] command = new String[words.length + 7];
    System.arraycopy(
        new String[] {
          "env",
          "QNBD_IMAGE=" + Containers.qnbdImage(),
          "QNBD_CLIENT_IMAGE=" + Containers.clientImage(),
          "docker-compose",
          "--project-name=qnbd-it",
          "--file",
          "docker/compose.yml"
        },
        0,
        command,
        0,
        7);
    System.arraycopy(words, 0, command, 7, words.length);
    return Containers.inRepository(RUN_MAX, command);
  }

  @Test
  void fioAndBonnieWorkOnTheExport() {
    try {
      Shell.Result up =
          compose("up", "--no-color", "--abort-on-container-exit", "--exit-code-from", "client");
      assertTrue(up.mustExit(0).out().contains("exercise: done"), up::toString);
      assertTrue(up.out().contains("qnbd: serving disk.qcow2"), up::toString);
    } finally {
      compose("down", "--volumes", "--timeout", "20").mustExit(0);
    }
  }
}
