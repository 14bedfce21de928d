package io.qnbd.server;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import org.jspecify.annotations.Nullable;

/** What went wrong, as one sentence on one line for the person at the terminal. */
final class Failures {
  private Failures() {}

  static String sentence(Throwable failure) {
    return Printable.text(
        switch (failure) {
          case UncheckedIOException e when e.getCause() != null -> sentence(e.getCause());
          case FileSystemException e -> fileSentence(e);
          case IOException e when e.getMessage() != null -> "" + e.getMessage();
          default -> unexpected(failure);
        });
  }

  /** The JDK's messages for these are file names only. */
  private static String fileSentence(FileSystemException e) {
    String file = e.getFile() == null ? "a file" : e.getFile();
    return switch (e) {
      case NoSuchFileException _ -> file + ": no such file or directory";
      case AccessDeniedException _ -> file + ": permission denied";
      case FileAlreadyExistsException _ -> file + ": is there already";
      default ->
          file + ": " + (e.getReason() == null ? e.getClass().getSimpleName() : e.getReason());
    };
  }

  private static String unexpected(Throwable failure) {
    @Nullable String message = failure.getMessage();
    return "unexpected %s%s; run with --debug for the trace"
        .formatted(failure.getClass().getSimpleName(), message == null ? "" : " (" + message + ")");
  }
}
