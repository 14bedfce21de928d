package io.qnbd.server;

import io.qnbd.server.config.TcpAddress;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.process.Parent;
import io.qnbd.server.process.PidFile;
import io.qnbd.server.process.PrivateDirectory;
import io.qnbd.server.process.RunCommand;
import io.qnbd.server.process.ServiceManager;
import io.qnbd.server.process.SocketActivation;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A server's life as a process: where it listens because of who started it, who is told when it is
 * ready, and what ends it other than a signal.
 *
 * <pre>
 * NEW --ready--> READY --stopping--> STOPPING --ended--> ENDED
 *  |                                    ^          ^
 *  +----------------stopping------------+          |
 *  +----------------ended--------------------------+
 *
 * READY     the pid file is there, the command runs, the service manager knows
 * STOPPING  the command has been asked to end, while it was still served
 * ENDED     the command has ended, nothing of the above is left
 * </pre>
 *
 * <p>Guarded by this object's monitor, which is not held while the command is waited for.
 */
final class Lifecycle {
  /** The environment's say in where to listen by default. */
  private static final String LISTEN_VARIABLE = "QNBD_LISTEN";

  /** A guest or a database that the command runs has to write before it can end. */
  private static final Duration COMMAND_END_MAX = Duration.ofSeconds(20);

  /** The level of TLS, as nbdkit tells its commands: none, offered, required. */
  private static final int TLS_OFF = 0;

  private static final int TLS_REQUIRED = 2;

  private final LifecycleOptions options;
  private final long pid = ProcessHandle.current().pid();
  private final ServiceManager manager = ServiceManager.of(System.getenv(), pid);
  private @Nullable PrivateDirectory directory;
  private @Nullable PidFile pidFile;
  private @Nullable RunCommand command;
  private boolean stopping;

  /**
   * @throws UsageException when the options contradict each other
   */
  Lifecycle(LifecycleOptions options) {
    options.check();
    this.options = options;
  }

  /** Who is told of reloads. */
  ServiceManager serviceManager() {
    return manager;
  }

  /** Whether standard output is the command's. */
  boolean runsCommand() {
    return options.command() != null;
  }

  /**
   * Where to listen: what was asked for; else the sockets that were handed over; else for a command
   * a private socket; else what the configuration file says, and otherwise the loopback.
   *
   * @param ofFile the file's addresses, or none
   * @throws UsageException when sockets were handed over and something else was asked for too
   */
  synchronized List<ListenAddress> addresses(
      List<ListenAddress.Tcp> listen, List<Path> unix, List<ListenAddress> ofFile)
      throws IOException {
    List<ListenAddress> addresses = new ArrayList<>(listen);
    unix.forEach(path -> addresses.add(new ListenAddress.Unix(path, options.unixMode())));
    List<ListenAddress.Inherited> inherited = SocketActivation.sockets(System.getenv(), pid);
    if (!inherited.isEmpty()) {
      if (!addresses.isEmpty() || runsCommand()) {
        throw new UsageException(
            "--listen, --unix and --run cannot be used with socket activation (LISTEN_FDS is set):"
                + " the service manager says where to listen");
      }
      return List.copyOf(inherited);
    }
    if (!addresses.isEmpty()) {
      return addresses;
    }
    if (!runsCommand()) {
      return ofFile.isEmpty() ? List.of(defaultAddress(System.getenv(LISTEN_VARIABLE))) : ofFile;
    }
    PrivateDirectory made = PrivateDirectory.make();
    directory = made;
    return List.of(new ListenAddress.Unix(made.socket()));
  }

  /**
   * Where a server listens that was not told where: on the loopback, unless the environment, as a
   * container image sets it, knows better.
   *
   * @param variable the value of {@link #LISTEN_VARIABLE}, or null
   */
  static ListenAddress.Tcp defaultAddress(@Nullable String variable) {
    if (variable == null || variable.isEmpty()) {
      return TcpAddress.LOOPBACK;
    }
    try {
      return TcpAddress.parse(variable);
    } catch (IllegalArgumentException e) {
      throw new UsageException(
          LISTEN_VARIABLE + " in the environment is no address: " + e.getMessage());
    }
  }

  /**
   * To be called on the thread that lives as long as the server, before anything is opened.
   *
   * @throws IOException when the server has no reason to live any more
   */
  void begin() throws IOException {
    if (options.exitWithParent()) {
      Parent.endWithIt();
    }
  }

  /**
   * Clients can connect: writes the pid file, starts the command, tells the service manager.
   *
   * @param line that says so
   * @param address where the command connects
   * @param exportName what the command connects to
   * @param tls 0 if there is no TLS, 1 if it is offered, 2 if it is required
   */
  synchronized void ready(String line, SocketAddress address, String exportName, int tls)
      throws IOException {
    if (stopping) {
      return; // a signal came first
    }
    Path path = options.pidFile();
    if (path != null) {
      pidFile = PidFile.write(path, pid);
    }
    String text = options.command();
    if (text != null) {
      command = RunCommand.start(text, variables(address, exportName, tls), this::end);
    }
    manager.ready(line.replaceFirst("^qnbd: ", ""));
  }

  /** What to do when the last client has gone. */
  void idle() {
    if (options.once()) {
      end();
    }
  }

  /** Ends the process the way a signal does, but without waiting for it. */
  private void end() {
    Thread.ofPlatform().daemon().name("end").start(() -> Runtime.getRuntime().exit(ExitCode.OK));
  }

  /** The server is about to stop: the command is asked to end while it is still served. */
  void stopping() {
    RunCommand running;
    synchronized (this) {
      stopping = true;
      running = command;
    }
    manager.stopping();
    if (running != null) {
      try {
        running.terminate(COMMAND_END_MAX);
      } catch (InterruptedException _) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /**
   * The server has stopped: tidies up.
   *
   * @param failures gets a sentence for each thing that failed
   * @return the command's exit code; 0 if there was no command
   */
  int ended(List<String> failures) {
    RunCommand running;
    synchronized (this) {
      stopping = true;
      running = command;
    }
    int code = ExitCode.OK;
    if (running != null) {
      try {
        code = running.end();
      } catch (InterruptedException _) {
        Thread.currentThread().interrupt();
        failures.add("interrupted while waiting for the command");
      }
    }
    removeFiles(failures);
    return code;
  }

  private synchronized void removeFiles(List<String> failures) {
    try {
      if (pidFile != null) {
        pidFile.remove();
      }
      if (directory != null) {
        directory.remove();
      }
    } catch (IOException e) {
      failures.add("tidying up: " + Failures.sentence(e));
    }
    pidFile = null;
    directory = null;
  }

  /** The names are nbdkit's. A variable without a meaning is there and empty, but for $tls. */
  private static Map<String, String> variables(SocketAddress address, String exportName, int tls) {
    SocketAddress reachable = reachable(address);
    String uri = NbdUri.of(reachable, exportName, tls == TLS_REQUIRED);
    Map<String, String> variables = new LinkedHashMap<>();
    variables.put("uri", uri);
    variables.put("nbd", uri);
    variables.put("exportname", exportName);
    variables.put(
        "port", reachable instanceof InetSocketAddress tcp ? Integer.toString(tcp.getPort()) : "");
    variables.put(
        "unixsocket",
        reachable instanceof UnixDomainSocketAddress unix
            ? unix.getPath().toAbsolutePath().toString()
            : "");
    if (tls != TLS_OFF) {
      variables.put("tls", Integer.toString(tls));
    }
    return variables;
  }

  /** A server on every address is reached from its own machine by the loopback's. */
  private static SocketAddress reachable(SocketAddress address) {
    return address instanceof InetSocketAddress tcp && tcp.getAddress().isAnyLocalAddress()
        ? new InetSocketAddress(InetAddress.ofLiteral("127.0.0.1"), tcp.getPort())
        : address;
  }
}
