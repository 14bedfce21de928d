package io.qnbd.server.net;

import io.netty.channel.unix.Errors;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** A socket that could not be had, as one sentence that names it and says what to do. */
final class BindFailure extends IOException {
  private static final long serialVersionUID = 1;

  private static final int EPERM = 1;
  private static final int ENOENT = 2;
  private static final int EACCES = 13;
  private static final int ENOTDIR = 20;
  private static final int ENOSPC = 28;
  private static final int EROFS = 30;
  private static final int EAFNOSUPPORT = 97;
  private static final int EADDRINUSE = 98;
  private static final int EADDRNOTAVAIL = 99;

  /** The kernel's words, by which Java's own sockets alone tell what went wrong. */
  private static final Map<String, Integer> NUMBERS =
      Map.of(
          "Operation not permitted", EPERM,
          "No such file or directory", ENOENT,
          "Permission denied", EACCES,
          "Not a directory", ENOTDIR,
          "No space left on device", ENOSPC,
          "Read-only file system", EROFS,
          "Address family not supported by protocol", EAFNOSUPPORT,
          "Address already in use", EADDRINUSE,
          "Cannot assign requested address", EADDRNOTAVAIL);

  /** The lowest port that everybody may listen on, unless the system says otherwise. */
  private static final int UNPRIVILEGED_PORT_MIN = 1024;

  enum Kind {
    /** Another socket has it. */
    IN_USE,
    /** This machine does not have the address, or not its whole family. */
    NO_ADDRESS,
    OTHER
  }

  private final Kind kind;

  private BindFailure(ListenAddress address, Kind kind, String why, Throwable cause) {
    super("listening on " + address + ": " + why, cause);
    this.kind = kind;
  }

  Kind kind() {
    return kind;
  }

  static BindFailure ofTcp(ListenAddress.Tcp address, int port, Throwable cause) {
    return switch (number(cause)) {
      case EADDRINUSE ->
          new BindFailure(
              address,
              Kind.IN_USE,
              "the port is in use; choose another, or 0 for any that is free",
              cause);
      case EADDRNOTAVAIL, EAFNOSUPPORT ->
          new BindFailure(address, Kind.NO_ADDRESS, "this machine has no such address", cause);
      case EACCES, EPERM ->
          new BindFailure(
              address,
              Kind.OTHER,
              port < UNPRIVILEGED_PORT_MIN
                  ? "ports below 1024 are for root; choose one from 1024 on"
                  : "this machine's rules forbid it",
              cause);
      default -> new BindFailure(address, Kind.OTHER, unexpected(cause), cause);
    };
  }

  static BindFailure ofUnix(Path path, Throwable cause) {
    ListenAddress address = new ListenAddress.Unix(path);
    @Nullable Path parent = path.toAbsolutePath().getParent();
    String directory = String.valueOf(parent);
    int number = number(cause);
    String why =
        switch (number) {
          case EADDRINUSE -> "the path exists; remove it or choose another";
          case ENOENT, ENOTDIR ->
              parent != null && Files.exists(parent)
                  ? directory + " is no directory in which files can be made"
                  : "there is no directory " + directory;
          case EACCES -> "permission denied to make a file in " + directory;
          case EPERM -> "the file system of " + directory + " takes no sockets";
          case EROFS -> "the file system of " + directory + " is read-only";
          case ENOSPC -> "the file system of " + directory + " is full";
          default -> unexpected(cause);
        };
    return new BindFailure(address, number == EADDRINUSE ? Kind.IN_USE : Kind.OTHER, why, cause);
  }

  /** The kernel's number for what went wrong, or 0; a family that is not there is told early. */
  private static int number(Throwable failure) {
    for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
      int number =
          switch (cause) {
            case Errors.NativeIoException numbered -> -numbered.expectedErr();
            case UnsupportedOperationException _ -> EAFNOSUPPORT;
            default -> NUMBERS.getOrDefault(String.valueOf(cause.getMessage()), 0);
          };
      if (number != 0) {
        return number;
      }
    }
    return 0;
  }

  private static String unexpected(Throwable cause) {
    return "it cannot be had (" + cause.getMessage() + ")";
  }
}
