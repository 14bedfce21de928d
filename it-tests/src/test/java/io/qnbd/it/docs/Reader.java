package io.qnbd.it.docs;

import io.qnbd.it.Repository;
import io.qnbd.it.Shell;
import io.qnbd.it.container.Containers;
import java.nio.file.Path;

/** A fresh container in which somebody follows the manual; {@code it-tests/docs} describes it. */
final class Reader implements AutoCloseable {
  private final String container;

  private Reader(String container) {
    this.container = container;
  }

  /** A container with the archive unpacked as the README says, and the files of its examples. */
  static Reader inFreshContainer() {
    Path archive = Containers.packaged("packaging/build-tar");
    Containers.clientImage();
    Shell.check(
        "docker", "build", "-q", "-t", "qnbd-reader-it", Repository.root() + "/it-tests/docs");
    Reader reader =
        new Reader(
            Shell.check(
                    "docker",
                    "run",
                    "--detach",
                    "--rm",
                    "--init",
                    "--add-host=backup:127.0.0.1",
                    "--add-host=disks.example.org:127.0.0.1",
                    // For nbdfuse.
                    "--cap-add=SYS_ADMIN",
                    "--device=/dev/fuse",
                    "--security-opt=seccomp=unconfined",
                    "--security-opt=apparmor=unconfined",
                    "-v",
                    archive.getParent() + ":/dist:ro",
                    "qnbd-reader-it")
                .strip());
    try {
      reader.exec("tar", "-C", "/opt", "-xzf", "/dist/" + archive.getFileName()).mustExit(0);
      reader.exec("follow", "--prepare").mustExit(0);
      return reader;
    } catch (Throwable e) {
      reader.close();
      throw e;
    }
  }

  private Shell.Result exec(String... command) {
    String[] words = new String[command.length + 3];
    words[0] = "docker";
    words[1] = "exec";
    words[2] = container;
    System.arraycopy(command, 0, words, 3, command.length);
    return Shell.run(words);
  }

  /** Runs a command of the manual, with what it needs around it. */
  Shell.Result run(String command) {
    return exec("follow", command);
  }

  /** Runs a command that fails, while a server has port 10809 and {@code locked.qcow2}. */
  Shell.Result runBesideOther(String command) {
    return exec("follow", "--fails", command);
  }

  @Override
  public void close() {
    Shell.check("docker", "rm", "--force", container);
  }
}
