package io.qnbd.server;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.ControlServer;
import io.qnbd.server.control.ControlledExport;
import io.qnbd.server.control.ExportStats;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ServedExports;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.NbdServer;
import io.qnbd.server.net.TlsSettings;
import java.io.IOException;
import java.net.SocketAddress;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
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
 * <p>Guarded by this object's monitor: a stop that comes during a start waits for its end.
 */
final class Serving {

  /** What clients get to send their last requests; with the images' last commit below 10 s. */
  private static final Duration SHUTDOWN_MAX = Duration.ofSeconds(5);

  private enum State {
    NEW,
    SERVING,
    STOPPED
  }

  /** An image that is open, and the file that it came from. */
  private record Opened(Path path, DiskImage image) {}

  private final ServePlan plan;
  private final Terminal terminal;
  private final List<Opened> opened = new ArrayList<>();
  private final List<ControlledExport> exports = new ArrayList<>();
  private State state = State.NEW;
  private @Nullable NbdServer server;
  private @Nullable ControlServer control;
  private List<SocketAddress> addresses = List.of();

  /**
   * @param terminal where the progress of slow steps is shown
   */
  Serving(ServePlan plan, Terminal terminal) {
    this.plan = plan;
    this.terminal = terminal;
  }

  /** Opens the images, and makes them where asked to; serves them; returns the ready line. */
  synchronized String start() throws IOException {
    if (state != State.NEW) {
      throw new IOException("stopped by a signal before the server was up");
    }
    try {
      List<ReadyLine.Item> items = new ArrayList<>();
      for (ExportArgument export : plan.exports()) {
        items.add(open(export));
      }
      Path controlPath = plan.control();
      if (controlPath != null) {
        StaleSocket.remove(controlPath);
        control = ControlServer.start(controlPath, exports, Failures::sentence);
      }
      for (ListenAddress address : plan.addresses()) {
        if (address instanceof ListenAddress.Unix unix && unix.fits()) {
          StaleSocket.remove(unix.path());
        }
      }
      NbdServer started =
          NbdServer.start(
              ServedExports.of(exports.stream().map(ControlledExport::export).toList()),
              plan.addresses(),
              plan.limits(),
              TlsSettings.OFF);
      server = started;
      addresses = started.addresses();
      String line = ReadyLine.of(items, addresses);
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

  private ReadyLine.Item open(ExportArgument argument) throws IOException {
    Path path = argument.path();
    ImageFormat format = ensureThere(path);
    DiskImage image;
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      image = DiskImages.open(path, plan.open(), progress);
    }
    opened.add(new Opened(path, image));
    Export export = new Export(argument.name(), format + " image", image, plan.open().cacheMode());
    exports.add(new ControlledExport(export, format.toString(), path));
    return item(argument, image, format);
  }

  /** Makes the image if it is missing and the plan says so; returns the format that it has. */
  private ImageFormat ensureThere(Path path) throws IOException {
    if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      Long bytes = plan.createBytes();
      if (bytes == null) {
        throw new IOException(path + ": no such file (--create SIZE makes it)");
      }
      DiskImages.create(
          path,
          plan.open().format() == ImageFormat.RAW
              ? CreateOptions.raw(bytes)
              : CreateOptions.qcow2(bytes));
    }
    ImageReport report =
        DiskImages.inspect(path, plan.open().withReadOnly(true).withForceShare(true));
    return report.format();
  }

  private ReadyLine.Item item(ExportArgument export, DiskImage image, ImageFormat format) {
    String name = plan.exports().size() == 1 ? export.path().toString() : export.name();
    return new ReadyLine.Item(
        name.isEmpty() ? "the default" : name,
        Sizes.text(image.virtualBytes())
            + ", "
            + format
            + (plan.open().snapshot() == null ? "" : ", snapshot " + plan.open().snapshot())
            + (image.readOnly() ? ", read-only" : ""));
  }

  /**
   * Sends the clients away, commits and closes the images. Closes the rest also when one fails.
   *
   * @return a sentence for each thing that failed; empty also when there was nothing to stop
   */
  synchronized List<String> stop() {
    List<String> failures = new ArrayList<>();
    boolean quiet = shutDown(failures);
    for (Opened each : opened) {
      try {
        if (quiet) {
          each.image().close();
        } else {
          each.image().flush();
        }
      } catch (IOException | RuntimeException e) {
        failures.add("closing " + each.path() + ": " + Failures.sentence(e));
      }
    }
    server = null;
    control = null;
    opened.clear();
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
  synchronized List<String> statistics() {
    return exports.stream()
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
