package io.qnbd.server;

/** The exit codes, as every {@code --help} lists them. The numbers of check are qemu-img's. */
final class ExitCode {
  private ExitCode() {}

  static final int OK = 0;
  static final int FAILURE = 1;
  static final int CORRUPT = 2;
  static final int LEAKS = 3;

  /** The format has nothing that could be checked. */
  static final int NO_CHECK = 63;

  /** EX_USAGE of sysexits.h; picocli's own 2 would read as check's "corrupt". */
  static final int USAGE = 64;
}
