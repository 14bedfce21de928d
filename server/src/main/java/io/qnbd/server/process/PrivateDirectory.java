package io.qnbd.server.process;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;

/** A fresh directory of the owner's alone, for a socket that nobody else shall find. */
public final class PrivateDirectory {
  /** Short whatever TMPDIR says: a socket's path has little room. */
  private static final Path PARENT = Path.of("/tmp");

  private final Path path;

  private PrivateDirectory(Path path) {
    this.path = path;
  }

  public static PrivateDirectory make() throws IOException {
    try {
      return new PrivateDirectory(
          Files.createTempDirectory(
              PARENT,
              "qnbd",
              PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"))));
    } catch (IOException e) {
      throw new IOException("making a directory in " + PARENT + ": " + Words.why(e), e);
    }
  }

  /** Where the socket is to be. */
  public Path socket() {
    return path.resolve("socket");
  }

  /** Removes the directory, from which the socket has gone. */
  public void remove() throws IOException {
    Files.deleteIfExists(path);
  }
}
