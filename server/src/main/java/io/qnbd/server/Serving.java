package io.qnbd.server;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.config.ConfigFile;
import io.qnbd.server.config.ExportKeys;
import io.qnbd.server.config.ExportPlan;
import io.qnbd.server.config.ServerConfig;
import io.qnbd.server.control.ControlServer;
import io.qnbd.server.control.ControlledExport;
import io.qnbd.server.control.ControlledExport.Origin;
import io.qnbd.server.control.ControlledServer;
import io.qnbd.server.control.ExportStats;
import io.qnbd.server.control.ReloadReport;
import io.qnbd.server.net.ClientInfo;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.NbdServer;
import io.qnbd.server.net.TlsSettings;
import io.qnbd.server.tls.TlsFiles;
import io.qnbd.server.tls.TlsService;
import java.io.IOException;
import java.net.SocketAddress;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * The images that are served and the network over them, from opening to closing.
 *
 * <pre>
 * NEW      nothing is open
 *   start() goes well --> SERVING   images open and locked, clients can connect
 *   start() fails     --> STOPPED   what was opened is closed again
 *   stop()            --> STOPPED   a start() after it fails
 * SERVING
 *   stop()            --> STOPPED   clients gone, images committed and closed
 * </pre>
 *
 * <p>Guarded by this object's monitor: a stop that comes during a start waits for its end. What an
 * operator asks for while it serves takes the locks of {@link OpenExports} instead, so that a stop
 * need not wait for it longer than it wants to.
 */
final class Serving implements ControlledServer {

  /** What clients get to send their last requests; with the images' last commit below 10 s. */
  private static final Duration SHUTDOWN_MAX = Duration.ofSeconds(5);

  private enum State {
    NEW,
    SERVING,
    STOPPED
  }

  private final ServePlan plan;
  private final OpenExports exports;
  private State state = State.NEW;
  private @Nullable ControlServer control;
  private @Nullable TlsService tls;
  private List<SocketAddress> addresses = List.of();
  private volatile @Nullable NbdServer server;

  /**
   * @param terminal where the progress of slow steps is shown
   */
  Serving(ServePlan plan, Terminal terminal) {
    this.plan = plan;
    this.exports = new OpenExports(terminal);
  }

  /** Opens the images, and makes them where asked to; serves them; returns the ready line. */
  synchronized String start() throws IOException {
    if (state != State.NEW) {
      throw new IOException("stopped by a signal before the server was up");
    }
    try {
      openExports();
      for (ListenAddress address : plan.addresses()) {
        if (address instanceof ListenAddress.Unix unix && unix.fits()) {
          StaleSocket.remove(unix.path());
        }
      }
      NbdServer started =
          NbdServer.start(exports.served(), plan.addresses(), plan.limits(), openTls());
      server = started;
      exports.servedBy(started);
      Path controlPath = plan.control();
      if (controlPath != null) {
        StaleSocket.remove(controlPath);
        control = ControlServer.start(controlPath, this, Failures::sentence);
      }
      addresses = started.addresses();
      String line = ReadyLine.of(exports.items(), addresses, plan.tls() == TlsMode.REQUIRED);
      state = State.SERVING;
      return line;
    } finally {
      if (state != State.SERVING) {
        stop();
      }
    }
  }

  /** Where clients connect, in the plan's order; known after {@link #start}. */
  synchronized List<SocketAddress> addresses() {
    return addresses;
  }

  /** Runs {@code action} when the last client has gone, also if that was before this call. */
  synchronized void onIdle(Runnable action) {
    NbdServer running = server;
    if (running != null) {
      running.onIdle(action);
    }
  }

  /** What a command connects to: the default export where there is one, else the first. */
  String preferredExport() {
    List<ControlledExport> now = exports.list();
    boolean byDefault = now.isEmpty() || exports.served().export("").isPresent();
    return byDefault ? "" : now.getFirst().export().settings().name();
  }

  private void openExports() throws IOException {
    for (ExportPlan export : plan.exports()) {
      requireReachable(export);
      ControlledExport _ = exports.open(export, Origin.COMMAND_LINE);
    }
    List<ExportPlan> ofFile = exportsOf(plan.config());
    for (ExportPlan export : ofFile) {
      requireReachable(export);
      ControlledExport _ = exports.open(export, Origin.FILE);
    }
    exports.chooseDefault(defaultOf(ofFile));
  }

  private static List<ExportPlan> exportsOf(@Nullable ServerConfig config) {
    return config == null ? List.of() : config.exports();
  }

  /** The one that the file chooses, or else the only one of the command line and the file. */
  private @Nullable String defaultOf(List<ExportPlan> ofFile) {
    for (ExportPlan export : ofFile) {
      if (export.chosen()) {
        return export.name();
      }
    }
    List<ExportPlan> all = new ArrayList<>(plan.exports());
    all.addAll(ofFile);
    return all.size() == 1 ? all.getFirst().name() : null;
  }

  private void requireReachable(ExportPlan export) throws IOException {
    boolean needsTls =
        export.settings().tlsRequired() || !export.settings().allowedSubjects().isEmpty();
    if (needsTls && plan.tls() == TlsMode.OFF) {
      throw new IOException(
          "export '%s' is for clients with TLS only, and the server has none: see --tls"
              .formatted(export.name()));
    }
  }

  private TlsSettings openTls() throws IOException {
    TlsFiles files = plan.tlsFiles();
    if (files == null) {
      return TlsSettings.OFF;
    }
    TlsService service = TlsService.open(files);
    tls = service;
    return new TlsSettings(plan.tls(), service);
  }

  @Override
  public List<ControlledExport> exports() {
    return exports.list();
  }

  @Override
  public <T> T use(String name, Use<T> use) throws IOException {
    return exports.use(name, use);
  }

  @Override
  public ControlledExport add(Map<String, Object> keys) throws IOException {
    ExportPlan export = ExportKeys.read(keys, UnaryOperator.identity(), Path.of(""));
    if (export.chosen()) {
      throw new IOException("the default export is chosen when the server starts, or in its file");
    }
    requireReachable(export);
    return exports.open(export, Origin.CONTROL);
  }

  @Override
  public void remove(String name) throws IOException {
    exports.remove(name);
  }

  @Override
  public ReloadReport reload() throws IOException {
    ServerConfig started = plan.config();
    if (started == null) {
      throw new IOException("the server was started without --config");
    }
    if (server == null) {
      throw new IOException("the server is not up");
    }
    ServerConfig now = ConfigFile.read(started.file());
    for (ExportPlan export : now.exports()) {
      requireReachable(export);
    }
    OpenExports.Changes done = exports.apply(now.exports(), defaultOf(now.exports()));
    return new ReloadReport(
        now.file().toString(),
        done.added(),
        done.removed(),
        done.reopened(),
        done.changed(),
        done.unchanged(),
        done.failed(),
        List.copyOf(started.serverKeysChangedTo(now)));
  }

  @Override
  public List<ClientInfo> clients() {
    NbdServer serving = server;
    return serving == null ? List.of() : serving.clients();
  }

  @Override
  public boolean disconnect(long client) {
    NbdServer serving = server;
    return serving != null && serving.disconnect(client);
  }

  /**
   * Sends the clients away, commits and closes the images. Closes the rest also when one fails.
   *
   * @return a sentence for each thing that failed; empty also when there was nothing to stop
   */
  synchronized List<String> stop() {
    List<String> failures = new ArrayList<>();
    if (state != State.STOPPED) {
      boolean quiet = shutDown(failures);
      failures.addAll(exports.close(quiet));
      if (tls != null) {
        tls.close();
      }
    }
    server = null;
    control = null;
    state = State.STOPPED;
    notifyAll();
    return failures;
  }

  /** Whether no request is in an image any more, which may be closed then. */
  private boolean shutDown(List<String> failures) {
    NbdServer stopping = server;
    ControlServer stoppingControl = control;
    long deadline = System.nanoTime() + SHUTDOWN_MAX.toNanos();
    try {
      if (stoppingControl != null) {
        stoppingControl.stop();
      }
      boolean quiet = stopping == null || stopping.shutdown(SHUTDOWN_MAX);
      if (stoppingControl != null) {
        Duration left = Duration.ofNanos(Math.max(0, deadline - System.nanoTime()));
        quiet &= stoppingControl.awaitQuiet(left);
      }
      if (quiet) {
        return true;
      }
      failures.add(
          "requests were still in progress %d s after the stop: the images are flushed, not closed"
              .formatted(SHUTDOWN_MAX.toSeconds()));
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
      failures.add("interrupted while stopping: the images are flushed, not closed");
    }
    return false;
  }

  /** The counters of every export, a line for each; those of the end once it is stopped. */
  List<String> statistics() {
    return exports.list().stream()
        .map(each -> ExportStats.of(each.export()))
        .map(stats -> Printable.text("qnbd: counters of " + stats.export() + ": " + stats.text()))
        .toList();
  }

  /** Waits until another thread has called {@link #stop}. */
  synchronized void awaitStopped() throws InterruptedException {
    while (state != State.STOPPED) {
      wait();
    }
  }
}
