package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.CACHE;
import static io.qnbd.server.net.RawClient.FLUSH;
import static io.qnbd.server.net.RawClient.write;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ServedExports;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Timeout(60)
final class ShutdownTest {
  private static final int ESHUTDOWN = 108;

  private static CompletableFuture<Boolean> shutDown(TestServer server, Duration bound) {
    return CompletableFuture.supplyAsync(() -> {
      try {
        return server.server.shutdown(bound);
      } catch (InterruptedException interrupted) {
        throw new AssertionError(interrupted);
      }
    });
  }

  @Test
  void finishesWhatCameAndRefusesWhatComesLater() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple();
        RawClient idle = server.simple()) {
      server.image.hold();
      for (int i = 0; i < 8; i++) {
        client.send(write(0, i, i * 4096L, new byte[4096]));
      }
      // A write that arrives after the shutdown began is rightly refused.
      TestServer.eventually("all writes came", () -> server.export.requests().writes() == 8);
      CompletableFuture<Boolean> done = shutDown(server, Duration.ofSeconds(20));
      int error = 0;
      while (error == 0) {
        error = idle.errorOf(0, FLUSH, 0, 0);
      }
      assertEquals(ESHUTDOWN, error);
      assertEquals(ESHUTDOWN, idle.errorOfWrite(0, 0, new byte[100_000]));
      assertThrows(IOException.class, server::simple, "nobody listens");
      server.image.release();
      client.simpleReplies(8).forEach(reply -> assertEquals(0, reply.error()));
      assertTrue(client.closedByServer());
      assertTrue(idle.closedByServer());
      assertTrue(done.join());
      assertEquals(8, server.image.writes());
      assertEquals(0, server.image.callsInProgress());
    }
  }

  @Test
  void waitsForCommits() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      server.image.holdCommits();
      client.send(RawClient.request(0, FLUSH, 1, 0, 0));
      TestServer.eventually("it is asked for", () -> server.image.commits() == 1);
      CompletableFuture<Boolean> done = shutDown(server, Duration.ofSeconds(20));
      Thread.sleep(50);
      assertFalse(done.isDone());
      server.image.releaseCommits();
      assertEquals(0, client.simpleReply().error());
      assertTrue(done.join());
    }
  }

  @Test
  void saysSoWhenTheImageDoesNotComeBackInTime() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      server.image.hold();
      client.send(RawClient.request(0, CACHE, 1, 0, 512));
      TestServer.eventually("it is in", () -> server.image.callsInProgress() == 1);
      long start = System.nanoTime();
      assertFalse(server.server.shutdown(Duration.ofMillis(400)));
      assertTrue(System.nanoTime() - start < Duration.ofSeconds(5).toNanos());
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void cutsClientsInTheirHandshake() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      assertTrue(server.server.shutdown(Duration.ofSeconds(20)));
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void saysWhichAddressCannotBeHad() throws Exception {
    try (TestServer server = new TestServer()) {
      int port = ((InetSocketAddress) server.address()).getPort();
      IOException inUse = assertThrows(IOException.class, () -> listenOn("127.0.0.1", port));
      assertTrue(
          String.valueOf(inUse.getMessage())
              .startsWith("listening on 127.0.0.1:" + port + ": the port is in use"),
          inUse.getMessage());
      IOException foreign = assertThrows(IOException.class, () -> listenOn("192.0.2.1", 0));
      assertEquals(
          "listening on 192.0.2.1:0: this machine has no such address", foreign.getMessage());
      IOException nameless = assertThrows(IOException.class, () -> listenOn("no.such.invalid", 0));
      assertEquals("listening on no.such.invalid:0: no such host", nameless.getMessage());
    }
  }

  private static NbdServer listenOn(String host, int port) throws IOException {
    return NbdServer.start(
        ServedExports.of(List.of()),
        List.of(new ListenAddress.Tcp(host, port)),
        ServerLimits.DEFAULT,
        TlsSettings.OFF);
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void listensOnUnixSocketAndDeletesIt(Transport transport, @TempDir Path directory)
      throws Exception {
    Path path = directory.resolve("nbd.sock");
    MemoryImage image = new MemoryImage(4096, false);
    ServedExports exports =
        ServedExports.of(List.of(new Export("disk", "", image, CacheMode.WRITEBACK)));
    List<ListenAddress> addresses = List.of(new ListenAddress.Unix(path));
    NbdServer server =
        NbdServer.start(exports, addresses, ServerLimits.DEFAULT, TlsSettings.OFF, transport);
    try (SocketChannel client = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      assertTrue(client.connect(UnixDomainSocketAddress.of(path)));
      ByteBuffer greeting = ByteBuffer.allocate(18);
      while (greeting.hasRemaining()) {
        assertTrue(client.read(greeting) > 0);
      }
      IOException exists =
          assertThrows(
              IOException.class,
              () ->
                  NbdServer.start(
                      exports, addresses, ServerLimits.DEFAULT, TlsSettings.OFF, transport));
      assertTrue(
          String.valueOf(exists.getMessage()).contains("the path exists"), exists.getMessage());
    }
    assertTrue(server.shutdown(Duration.ofSeconds(10)));
    assertFalse(Files.exists(path));
  }
}
