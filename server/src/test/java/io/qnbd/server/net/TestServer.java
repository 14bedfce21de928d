package io.qnbd.server.net;

import io.qnbd.image.CacheMode;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ServedExports;
import java.io.IOException;
import java.net.SocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.function.BooleanSupplier;

/** A server with one export, {@code disk}, that is checked to hold nothing when it stops. */
final class TestServer implements AutoCloseable {
  static final int DISK_BYTES = 16 << 20;

  final MemoryImage image;
  final Export export;
  final NbdServer server;

  TestServer() throws IOException {
    this(new MemoryImage(DISK_BYTES, false), CacheMode.WRITEBACK, ServerLimits.DEFAULT);
  }

  TestServer(MemoryImage image, CacheMode mode, ServerLimits limits) throws IOException {
    this(image, mode, limits, Transport.best());
  }

  TestServer(MemoryImage image, CacheMode mode, ServerLimits limits, Transport transport)
      throws IOException {
    this(image, mode, limits, transport, new ListenAddress.Tcp("127.0.0.1", 0));
  }

  TestServer(
      MemoryImage image,
      CacheMode mode,
      ServerLimits limits,
      Transport transport,
      ListenAddress address)
      throws IOException {
    this.image = image;
    this.export = new Export("disk", "a test disk", image, mode);
    this.server =
        NbdServer.start(
            ServedExports.of(List.of(export)),
            List.of(address),
            limits,
            TlsSettings.OFF,
            transport);
  }

  SocketAddress address() {
    return server.addresses().getFirst();
  }

  RawClient connect() throws IOException {
    return new RawClient(address());
  }

  RawClient simple() throws IOException {
    return connect().go("", false);
  }

  RawClient structured() throws IOException {
    return connect().go("disk", true);
  }

  static void eventually(String what, BooleanSupplier condition) throws InterruptedException {
    long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError("not in 10 seconds: " + what);
      }
      Thread.sleep(2);
    }
  }

  @Override
  public void close() {
    image.release();
    image.releaseCommits();
    try {
      if (!server.shutdown(Duration.ofSeconds(10))) {
        throw new AssertionError("calls in progress after shutdown");
      }
    } catch (InterruptedException interrupted) {
      throw new AssertionError(interrupted);
    }
    if (server.bytesInFlight() != 0) {
      throw new AssertionError("bytes still held: " + server.bytesInFlight());
    }
    if (server.connectionCount() != 0) {
      throw new AssertionError("connections left: " + server.connectionCount());
    }
  }
}
