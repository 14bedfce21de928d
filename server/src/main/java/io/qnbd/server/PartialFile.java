package io.qnbd.server;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/**
 * A file that gets its name only when it is complete. Until then it has a name of its own beside
 * the final one, and it is removed when the work fails or the process is told to end.
 *
 * <p>Owner: the thread of the command; the shutdown hook may remove the file under it.
 */
final class PartialFile implements AutoCloseable {
  private final Path target;
  private final Path partial;
  private final boolean replace;
  private final Thread atShutdown = new Thread(this::remove);

  /**
   * Nothing is made yet.
   *
   * @param replace whether a file that has the name may be replaced
   */
  PartialFile(Path named, boolean replace) throws IOException {
    this.replace = replace;
    requireReplaceable(named, replace);
    target = Files.exists(named) ? named.toRealPath() : named.toAbsolutePath();
    Path name = target.getFileName();
    partial =
        target.resolveSibling(".%s.partial-%d".formatted(name, ProcessHandle.current().pid()));
    Runtime.getRuntime().addShutdownHook(atShutdown);
  }

  private static void requireReplaceable(Path named, boolean replace) throws IOException {
    if (!Files.exists(named, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    if (Files.exists(named) && !Files.isRegularFile(named)) {
      throw new IOException(
          named + " is there and is no file; to write into a device, use -n and -O raw");
    }
    if (!replace) {
      throw new IOException(
          named + " exists already: --force replaces it, -n writes into it as it is");
    }
  }

  /** The name to write to. */
  Path path() {
    return partial;
  }

  /** Gives the complete file its name. */
  void complete() throws IOException {
    requireReplaceable(target, replace);
    Files.move(partial, target, StandardCopyOption.ATOMIC_MOVE);
  }

  private void remove() {
    try {
      Files.deleteIfExists(partial);
    } catch (IOException _) {
      // It says by its name that it is not complete.
    }
  }

  @Override
  public void close() {
    remove();
    try {
      Runtime.getRuntime().removeShutdownHook(atShutdown);
    } catch (IllegalStateException _) {
      // the hook is running
    }
  }
}
