package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.CACHE;
import static io.qnbd.server.net.RawClient.write;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ExportSettings;
import io.qnbd.server.export.RateLimits;
import io.qnbd.server.export.ServedExports;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Clients sent away one by one, or an export's at once, while others go on. */
@Timeout(120)
final class DisconnectTest {
  private static final Duration LONG = Duration.ofSeconds(40);

  private final MemoryImage aDisk = new MemoryImage(1 << 20, false);
  private final MemoryImage bDisk = new MemoryImage(1 << 20, false);
  private final Export a = new Export("a", "", aDisk, CacheMode.WRITEBACK);
  private final Export b = new Export("b", "", bDisk, CacheMode.WRITEBACK);
  private final ServedExports exports = ServedExports.of(List.of(a, b));
  private NbdServer server;

  @BeforeEach
  void start() throws IOException {
    server =
        NbdServer.start(
            exports,
            List.of(new ListenAddress.Tcp("127.0.0.1", 0)),
            ServerLimits.DEFAULT,
            TlsSettings.OFF);
  }

  @AfterEach
  void stop() throws InterruptedException {
    aDisk.release();
    bDisk.release();
    assertTrue(server.shutdown(LONG));
  }

  private RawClient connect() throws IOException {
    return new RawClient(server.addresses().getFirst());
  }

  private CompletableFuture<Boolean> disconnectAll(Export export, Duration bound) {
    return CompletableFuture.supplyAsync(() -> {
      try {
        return server.disconnectAll(export, bound);
      } catch (InterruptedException e) {
        throw new CompletionException(e);
      }
    });
  }

  @Test
  void clientsSayWhoTheyAreAndWhatTheyUse() throws Exception {
    try (RawClient first = connect().go("b", false);
        RawClient _ = connect().greet(3)) {
      TestServer.eventually("both are there", () -> server.clients().size() == 2);
      List<ClientInfo> clients = server.clients();
      TestServer.eventually("the first uses b", () -> "b".equals(server.clients().get(0).export()));
      assertEquals(null, clients.get(1).export());
      assertTrue(clients.get(0).peer().contains("127.0.0.1"), clients.toString());
      assertTrue(clients.get(0).id() < clients.get(1).id());
      assertFalse(server.disconnect(12345));
      assertTrue(server.disconnect(clients.get(0).id()));
      assertTrue(first.closedByServer());
      TestServer.eventually("one is left", () -> server.clients().size() == 1);
      assertEquals(clients.get(1).id(), server.clients().getFirst().id());
    }
  }

  @Test
  void clientsOfTheExportGetTheirAnswersAndOthersNoticeNothing() throws Exception {
    try (RawClient ofA = connect().go("a", false);
        RawClient ofB = connect().go("b", false)) {
      aDisk.hold();
      for (int i = 0; i < 2; i++) {
        ofA.send(write(0, i, i * 4096L, new byte[4096]));
      }
      TestServer.eventually("all writes came", () -> a.requests().writes() == 2);
      exports.remove(a);
      CompletableFuture<Boolean> quiet = disconnectAll(a, LONG);
      assertEquals(0, ofB.errorOfWrite(0, 0, new byte[4096]));
      assertThrows(IOException.class, () -> connect().go("a", false).close());
      assertFalse(quiet.isDone(), "the image still has calls");
      aDisk.release();
      ofA.simpleReplies(2).forEach(reply -> assertEquals(0, reply.error()));
      assertTrue(ofA.closedByServer());
      assertTrue(quiet.join());
      assertEquals(0, aDisk.callsInProgress());
      assertEquals(2, aDisk.writes());
      assertEquals(0, ofB.errorOfWrite(0, 0, new byte[4096]));
    }
  }

  @Test
  void saysSoWhenACallIsStillInTheImage() throws Exception {
    try (RawClient ofA = connect().go("a", false)) {
      aDisk.hold();
      ofA.send(RawClient.request(0, CACHE, 1, 0, 512));
      TestServer.eventually("it is in", () -> aDisk.callsInProgress() == 1);
      assertFalse(disconnectAll(a, Duration.ofMillis(300)).join());
      assertTrue(ofA.closedByServer());
      aDisk.release();
      assertTrue(disconnectAll(a, LONG).join());
      assertEquals(0, aDisk.callsInProgress());
    }
  }

  /** Found before it was removed, entered after: such a client must not reach the image. */
  @Test
  void aClientThatComesThroughTooLateIsSentAway() throws Exception {
    assertTrue(disconnectAll(a, LONG).join());
    try (RawClient late = connect()) {
      assertThrows(IOException.class, () -> late.go("a", false).errorOfWrite(0, 0, new byte[512]));
    }
    assertEquals(0, aDisk.writes());
  }

  @Test
  void oneMoreThanTheLimitIsSentAway() throws Exception {
    a.configure(new ExportSettings("a", "", false, Set.of(), 2, 0, RateLimits.NONE));
    try (RawClient first = connect().go("a", false);
        RawClient second = connect().go("a", false)) {
      assertEquals(0, first.errorOfWrite(0, 0, new byte[512]));
      assertEquals(0, second.errorOfWrite(0, 0, new byte[512]));
      assertThrows(
          IOException.class,
          () -> {
            try (RawClient third = connect().go("a", false)) {
              third.errorOfWrite(0, 0, new byte[512]);
            }
          });
      assertEquals(0, first.errorOfWrite(0, 0, new byte[512]));
    }
  }
}
