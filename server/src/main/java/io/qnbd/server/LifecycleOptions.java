package io.qnbd.server;

import io.qnbd.server.net.ListenAddress;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Option;
import picocli.CommandLine.TypeConversionException;

/** The options of {@code serve} about the server as a process. */
final class LifecycleOptions {

  @Option(
      names = "--unix-mode",
      paramLabel = "OCTAL",
      converter = Mode.class,
      defaultValue = "0600",
      description = {
        "Who may connect to the sockets of --unix, as for chmod: 0660 adds the group. NBD asks "
            + "nobody for a password. Default: ${DEFAULT-VALUE}, the owner only."
      })
  // An Integer, since picocli reads objects and flags already: one way less that Java has to make.
  private Integer unixMode = ListenAddress.Unix.MODE_DEFAULT;

  @Option(
      names = "--run",
      paramLabel = "COMMAND",
      description = {
        "When clients can connect, run COMMAND by the shell; when it ends, stop, with its exit "
            + "code. It finds $uri (also as $nbd), $port, $unixsocket and $exportname. Unless "
            + "--listen or --unix is given, the server listens on a private Unix socket only. No "
            + "line is printed."
      })
  private @Nullable String command;

  @Option(
      names = "--once",
      description = {
        "Stop when the last client has gone. Clients that only look, without choosing an export, "
            + "do not count."
      })
  private boolean once;

  @Option(
      names = "--exit-with-parent",
      description = "Stop when the process that started this one ends.")
  private boolean exitWithParent;

  @Option(
      names = "--pid-file",
      paramLabel = "PATH",
      description = {
        "Write the process's number to PATH when clients can connect; remove it at the end."
      })
  private @Nullable Path pidFile;

  int unixMode() {
    return unixMode;
  }

  @Nullable String command() {
    return command;
  }

  boolean once() {
    return once;
  }

  boolean exitWithParent() {
    return exitWithParent;
  }

  @Nullable Path pidFile() {
    return pidFile;
  }

  /**
   * @throws UsageException when the options contradict each other
   */
  void check() {
    if (command != null && command.isBlank()) {
      throw new UsageException("--run needs a command");
    }
    if (command != null && once) {
      throw new UsageException(
          "--run and --once exclude each other: with --run the server stops when the command ends");
    }
  }

  /** Permission bits in octal. */
  static final class Mode implements ITypeConverter<Integer> {
    @Override
    public Integer convert(String text) {
      if (!text.matches("[0-7]{1,4}") || Integer.parseInt(text, 8) > ListenAddress.Unix.MODE_MAX) {
        throw new TypeConversionException(
            "'%s' is no mode: write permission bits in octal, 0600 to 0777".formatted(text));
      }
      return Integer.parseInt(text, 8);
    }
  }
}
