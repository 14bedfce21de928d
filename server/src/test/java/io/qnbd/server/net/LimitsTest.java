package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.CACHE;
import static io.qnbd.server.net.RawClient.FLUSH;
import static io.qnbd.server.net.RawClient.READ;
import static io.qnbd.server.net.RawClient.WRITE;
import static io.qnbd.server.net.RawClient.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class LimitsTest {
  private static final int MIB = 1 << 20;

  private static TestServer serverWith(ServerLimits limits) throws Exception {
    return new TestServer(
        new MemoryImage(TestServer.DISK_BYTES, false), CacheMode.WRITEBACK, limits);
  }

  @Test
  void clientThatNeverReadsRepliesHoldsNoMoreThanItsShare() throws Exception {
    long share = 8L * MIB;
    try (TestServer server = serverWith(ServerLimits.DEFAULT.withInFlight(64, share, 64L * MIB))) {
      RawClient greedy = new RawClient(server.address(), 4096).go("", false);
      Thread sender =
          Thread.ofVirtual()
              .start(() -> {
                try {
                  for (int i = 0; i < 16 * 1024; i++) {
                    greedy.send(request(0, READ, i, 0, MIB)); // 16 GiB in all
                  }
                } catch (java.io.IOException _) {
                  // Reset below, as planned.
                }
              });
      TestServer.eventually(
          "the share is used up", () -> server.server.bytesInFlight() >= share - 2 * MIB);
      long most = 0;
      for (int i = 0; i < 50; i++) {
        most = Math.max(most, server.server.bytesInFlight());
        Thread.sleep(5);
      }
      assertTrue(most <= share, most + " bytes in flight");
      try (RawClient other = server.simple()) {
        assertEquals(0, other.errorOf(0, READ, 0, MIB));
        var _ = other.data(MIB);
      }
      greedy.reset();
      sender.join();
      TestServer.eventually("all is released", () -> server.server.bytesInFlight() == 0);
    }
  }

  @Test
  void noMoreRequestsEnterTheImageThanAllowed() throws Exception {
    ServerLimits limits =
        ServerLimits.DEFAULT.withWorkerThreads(32).withInFlight(10, 64L * MIB, 64L * MIB);
    try (TestServer server = serverWith(limits);
        RawClient client = server.simple()) {
      server.image.hold();
      for (int i = 0; i < 100; i++) {
        client.send(request(0, CACHE, i, 0, 512));
      }
      TestServer.eventually("ten are in", () -> server.image.callsInProgress() == 10);
      Thread.sleep(50);
      assertEquals(10, server.image.callsInProgress());
      server.image.release();
      client.simpleReplies(100).forEach(reply -> assertEquals(0, reply.error()));
    }
  }

  @Test
  void requestLargerThanEveryBoundIsServedAlone() throws Exception {
    try (TestServer server = serverWith(ServerLimits.DEFAULT.withInFlight(1, 1000, 1000));
        RawClient client = server.simple();
        RawClient other = server.simple()) {
      for (int i = 0; i < 4; i++) {
        other.send(request(0, READ, 1, 0, 2 * MIB), request(0, READ, 2, 0, 2 * MIB));
        for (int reply = 0; reply < 2; reply++) {
          assertEquals(0, other.simpleReply().error());
          var _ = other.data(2 * MIB);
        }
        assertEquals(0, client.errorOfWrite(0, 0, new byte[3 * MIB]));
      }
    }
  }

  @Test
  void connectionsThatShareASmallBudgetAllGetTheirTurn() throws Exception {
    ServerLimits limits = ServerLimits.DEFAULT.withInFlight(64, 8L * MIB, 5L * MIB);
    try (TestServer server = serverWith(limits)) {
      List<Future<Integer>> results = new ArrayList<>();
      try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
        for (int i = 0; i < 8; i++) {
          results.add(threads.submit(() -> readTwoMiBTwelveTimes(server)));
        }
      }
      for (Future<Integer> result : results) {
        assertEquals(0, result.get());
      }
    }
  }

  private static int readTwoMiBTwelveTimes(TestServer server) throws Exception {
    int errors = 0;
    try (RawClient client = server.simple()) {
      for (int i = 0; i < 12; i++) {
        client.send(request(0, READ, i, 0, 2 * MIB));
      }
      for (int i = 0; i < 12; i++) {
        errors += client.simpleReply().error();
        var _ = client.data(2 * MIB);
      }
    }
    return errors;
  }

  @Test
  void stalledClientsStopNoSmallRequestsAndAreCutWhenOthersNeedTheirMemory() throws Exception {
    ServerLimits limits =
        ServerLimits.DEFAULT
            .withInFlight(64, 64L * MIB, 8L * MIB)
            .withStallDeadline(Duration.ofMillis(300));
    try (TestServer server = serverWith(limits);
        RawClient silent = server.simple();
        RawClient modest = server.simple();
        RawClient large = server.simple()) {
      silent.send(request(0, WRITE, 1, 0, 8 * MIB), new byte[100]);
      TestServer.eventually("it holds all", () -> server.server.bytesInFlight() == 8L * MIB);
      assertEquals(0, modest.errorOf(0, READ, 0, 65536));
      var _ = modest.data(65536);
      Thread.sleep(800);
      assertEquals(3, server.server.connectionCount(), "nobody is cut while nobody waits");
      assertEquals(0, large.errorOf(0, READ, 0, 4 * MIB));
      var _ = large.data(4 * MIB);
      assertTrue(silent.closedByServer());
    }
  }

  @Test
  void clientThatDiesWaitingForMemoryLeavesTheQueue() throws Exception {
    ServerLimits limits = ServerLimits.DEFAULT.withInFlight(64, 4L * MIB, MIB);
    try (TestServer server = serverWith(limits);
        RawClient holder = server.simple();
        RawClient last = server.simple()) {
      holder.send(request(0, WRITE, 1, 0, 2 * MIB), new byte[100]);
      TestServer.eventually("it holds all", () -> server.server.bytesInFlight() == 2 * MIB);
      RawClient waiting = server.simple();
      waiting.send(request(0, READ, 1, 0, 2 * MIB));
      assertEquals(0, last.errorOf(0, FLUSH, 0, 0));
      waiting.reset();
      TestServer.eventually("it is gone", () -> server.server.connectionCount() == 2);
      holder.send(new byte[2 * MIB - 100]);
      assertEquals(0, holder.simpleReply().error());
      assertEquals(0, last.errorOf(0, READ, 0, 2 * MIB));
      var _ = last.data(2 * MIB);
    }
  }

  @Test
  void announcedWriteGivesItsShareBackWhenTheClientDies() throws Exception {
    MemoryImage image = new MemoryImage(65 * MIB, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT);
        RawClient client = server.simple()) {
      client.send(request(0, WRITE, 1, 0, 64 * MIB), new byte[1000]);
      TestServer.eventually("it is admitted", () -> server.server.bytesInFlight() == 64L * MIB);
      client.reset();
      TestServer.eventually("it is released", () -> server.server.bytesInFlight() == 0);
    }
  }
}
