package io.qnbd.it.docs;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.Repository;
import io.qnbd.it.Shell;
import io.qnbd.it.container.Containers;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/**
 * Who clones the repository and does what the README says first has a server: in a fresh container
 * that has a JDK, Maven and nothing that was built. Libraries come from the local repository of the
 * build that runs the tests, which holds all of them, and only to be read.
 */
final class CloneIT {
  private static final String NAME = "qnbd-clone-it";
  private static final Duration BUILD_MAX = Duration.ofMinutes(6);
  private static final Duration STOP_MAX = Duration.ofSeconds(40);

  private Path dir = Path.of("");

  @BeforeEach
  void copyWhatIsNotBuilt() throws IOException {
    dir = Files.createTempDirectory("qnbd-clone");
    // What a clone of the next commit would have.
    Shell.check(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        """
        cd "$1"
        mkdir "$2/qnbd" "$2/maven" "$2/m2"
        # Without git's own files, or in somebody else's directory, all but what builds make.
        git rev-parse --git-dir >/dev/null 2>&1 && list="git ls-files -z --cached --others --exclude-standard" \\
          || list="find . ( -name target -o -name .git ) -prune -o -type f -print0"
        $list | tar --null -T - --ignore-failed-read -c | tar -C "$2/qnbd" -x
        [ ! -e "$2/qnbd/server/target" ]
        # Debian's Maven is spread over several directories that links lead to.
        maven=$(mvn --version | sed -n 's/^Maven home: //p')
        cp -rL "$maven/." "$2/maven"
        [ ! -e ~/.m2/settings.xml ] || cp ~/.m2/settings.xml "$2/m2/"
        """,
        "bash",
        Repository.root().toString(),
        dir.toString());
  }

  @AfterEach
  void remove() {
    Shell.run("docker", "rm", "--force", NAME);
    Shell.check("rm", "-rf", dir.toString());
  }

  @Test
  void theFirstCommandOfTheReadmeBuildsAndServes() throws IOException {
    Page readme = Page.read("README.md");
    String command = readme.commands().getFirst().text();
    String ready = readme.from("qnbd: serving ");
    assertFalse(ready.isEmpty());
    try (Shell.Running server = inContainer(command)) {
      long deadline = System.nanoTime() + BUILD_MAX.toNanos();
      while (!server.out().contains("\n")) {
        assertTrue(server.process().isAlive() && System.nanoTime() < deadline, server::toString);
        Shell.pause(Duration.ofMillis(100));
      }
      assertEquals(ready, server.out(), server::toString);
      Shell.check("docker", "exec", NAME, "nbdinfo", "nbd://127.0.0.1:10809");
      Shell.check("docker", "stop", "-t", "30", NAME);
      server.await(STOP_MAX).mustExit(0);
    }
    Shell.check("qemu-img", "check", dir.resolve("qnbd/disk.qcow2").toString());
  }

  private Shell.Running inContainer(String command) {
    List<String> docker =
        new ArrayList<>(List.of("docker", "run", "--name", NAME, "--init", "-w", "/root/qnbd"));
    String repository =
        System.getProperty("maven.repo.local", System.getProperty("user.home") + "/.m2/repository");
    docker.addAll(
        List.of(
            "-v",
            dir + "/qnbd:/root/qnbd",
            "-v",
            dir + "/m2:/root/.m2",
            "-v",
            repository + ":/root/.m2/repository:ro",
            "-v",
            dir + "/maven:/opt/maven:ro",
            "-v",
            System.getProperty("java.home") + ":/opt/java/jdk:ro",
            "-e",
            "PATH=/opt/maven/bin:/opt/java/jdk/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            Containers.clientImage(),
            "bash",
            "-c",
            command));
    return Shell.start(docker.toArray(String[]::new));
  }
}
