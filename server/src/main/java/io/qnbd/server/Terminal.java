package io.qnbd.server;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Where a command writes: answers to {@code out}, everything else to {@code err}. A reader that
 * went away is no error: both writers swallow it.
 *
 * @param watched whether a person looks at {@code err}, so that a line may be written over
 */
record Terminal(PrintWriter out, PrintWriter err, boolean watched) {
  private static final Path STANDARD_ERROR = Path.of("/proc/self/fd/2");

  Terminal(PrintWriter out, PrintWriter err) {
    this(out, err, false);
  }

  /** The process's own standard streams. */
  static Terminal ofProcess() {
    return new Terminal(
        new PrintWriter(System.out, true, System.out.charset()),
        new PrintWriter(System.err, true, System.err.charset()),
        standardErrorIsTerminal());
  }

  /** System.console() would ask about the input and the output instead. */
  private static boolean standardErrorIsTerminal() {
    try {
      String device = Files.readSymbolicLink(STANDARD_ERROR).toString();
      return device.matches("/dev/(pts/|tty|console).*");
    } catch (IOException _) {
      return false; // no /proc: then nothing is written over
    }
  }
}
