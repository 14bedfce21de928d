package io.qnbd.server.tls;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.NoSuchFileException;

/** Failures to read a file, for the log. */
final class Sentences {
  private Sentences() {}

  /** The JDK's messages of some are the name of the file only. */
  static String of(IOException failure) {
    return switch (failure) {
      case NoSuchFileException e -> e.getFile() + ": no such file or directory";
      case AccessDeniedException e -> e.getFile() + ": permission denied";
      default -> String.valueOf(failure.getMessage());
    };
  }
}
