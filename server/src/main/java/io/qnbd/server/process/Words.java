package io.qnbd.server.process;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;

/** Why something about a file failed, without the file's name, which the caller has said. */
final class Words {
  private Words() {}

  static String why(IOException failure) {
    return switch (failure) {
      case NoSuchFileException _ -> "its directory is not there";
      case AccessDeniedException _ -> "permission denied";
      case FileSystemException e when e.getReason() != null -> "" + e.getReason();
      default -> String.valueOf(failure.getMessage());
    };
  }
}
