package io.qnbd.server.process;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/**
 * A file that holds this process's number and a line's end while the server is ready. Whoever waits
 * for it never sees it in part.
 */
public final class PidFile {
  private final Path path;
  private final String contents;

  private PidFile(Path path, String contents) {
    this.path = path;
    this.contents = contents;
  }

  /**
   * Writes the file, in the place of one that a server which was killed has left.
   *
   * @throws IOException with one sentence that names the file
   */
  public static PidFile write(Path path, long pid) throws IOException {
    String contents = pid + "\n";
    Path partial = path.resolveSibling("." + path.getFileName() + "." + pid);
    try {
      if (Files.isDirectory(path)) {
        throw new IOException("is a directory");
      }
      try {
        Files.writeString(partial, contents);
        Files.move(partial, path, StandardCopyOption.ATOMIC_MOVE);
      } finally {
        Files.deleteIfExists(partial);
      }
    } catch (IOException e) {
      throw new IOException("writing the pid file " + path + ": " + Words.why(e), e);
    }
    return new PidFile(path, contents);
  }

  /** Removes the file, unless another server has written it since. */
  public void remove() throws IOException {
    if (Files.exists(path) && Files.readString(path).equals(contents)) {
      Files.delete(path);
    }
  }
}
