package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.CACHE;
import static io.qnbd.server.net.RawClient.DISC;
import static io.qnbd.server.net.RawClient.FLUSH;
import static io.qnbd.server.net.RawClient.FUA;
import static io.qnbd.server.net.RawClient.READ;
import static io.qnbd.server.net.RawClient.TRIM;
import static io.qnbd.server.net.RawClient.WRITE;
import static io.qnbd.server.net.RawClient.WRITE_ZEROES;
import static io.qnbd.server.net.RawClient.request;
import static io.qnbd.server.net.RawClient.write;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.image.NoSpaceException;
import io.qnbd.image.ZeroMode;
import io.qnbd.server.net.RawClient.Chunk;
import io.qnbd.server.net.RawClient.SimpleReply;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@Timeout(60)
final class TransmissionTest {
  private static final int EPERM = 1;
  private static final int EIO = 5;
  private static final int ENOTSUP = 95;
  private static final int EINVAL = 22;
  private static final int ENOSPC = 28;
  private static final int EOVERFLOW = 75;
  private static final int BIG = 64 << 20;

  private static byte[] pattern(int bytes, long seed) {
    byte[] data = new byte[bytes];
    new Random(seed).nextBytes(data);
    return data;
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void readsBackWhatWasWrittenAtEverySize(Transport transport) throws Exception {
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server =
            new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT, transport);
        RawClient client = server.simple()) {
      for (int bytes : new int[] {1, 511, 4096, 65536, 100_001, 1 << 20, 5 << 20}) {
        byte[] data = pattern(bytes, bytes);
        assertEquals(0, client.errorOfWrite(0, 3, data));
        assertEquals(0, client.errorOf(0, READ, 3, bytes));
        assertArrayEquals(data, client.data(bytes), bytes + " bytes");
      }
    }
  }

  @Test
  void servesPayloadsOf64MiB() throws Exception {
    MemoryImage image = new MemoryImage(BIG + 4096, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT);
        RawClient client = server.structured()) {
      byte[] data = pattern(BIG, 1);
      assertEquals(0, client.errorOfWrite(0, 4096, data));
      client.send(request(0, READ, 5, 4096, BIG));
      Chunk chunk = client.chunk();
      assertEquals(1, chunk.type());
      assertEquals(1, chunk.flags());
      assertEquals(BIG + 8, chunk.data().remaining());
      assertEquals(data[BIG - 1], chunk.data().get(BIG + 7));
      client.send(request(0, READ, 6, 0, BIG + 1));
      Chunk tooLong = client.chunk();
      assertEquals(0x8001, tooLong.type());
      assertEquals(EOVERFLOW, tooLong.data().getInt());
      assertEquals(0, client.errorOf(0, TRIM, 0, BIG + 4096), "a trim may be longer");
      assertEquals(0, client.errorOf(0, WRITE_ZEROES, 0, BIG + 4096));
      client.send(request(0, WRITE, 9, 0, BIG + 1));
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void answersLongReadWithEinvalWithoutStructuredReplies() throws Exception {
    MemoryImage image = new MemoryImage(BIG + 4096, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT);
        RawClient client = server.simple()) {
      assertEquals(EINVAL, client.errorOf(0, READ, 0, BIG + 1));
      assertEquals(EINVAL, client.errorOf(0, READ, 0, -1));
      assertEquals(0, client.errorOf(0, FLUSH, 0, 0));
    }
  }

  @Test
  void answers64RequestsInOneSegment() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      ByteArrayOutputStream segment = new ByteArrayOutputStream();
      for (int i = 0; i < 64; i++) {
        segment.writeBytes(request(0, CACHE, i, i * 4096L, 4096));
      }
      client.send(segment.toByteArray());
      Set<Long> cookies = new HashSet<>();
      for (SimpleReply reply : client.simpleReplies(64)) {
        assertEquals(0, reply.error());
        cookies.add(reply.cookie());
      }
      assertEquals(64, cookies.size());
      assertEquals(64, server.image.prefetches());
    }
  }

  @Test
  void answers2000ReadsSentBeforeAnyReplyIsTaken() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      ByteArrayOutputStream requests = new ByteArrayOutputStream();
      for (int i = 0; i < 2000; i++) {
        requests.writeBytes(request(0, READ, i, i * 512L, 512));
      }
      client.send(requests.toByteArray());
      Set<Long> cookies = new HashSet<>();
      for (int i = 0; i < 2000; i++) {
        SimpleReply reply = client.simpleReply();
        assertEquals(0, reply.error());
        cookies.add(reply.cookie());
        var _ = client.data(512);
      }
      assertEquals(2000, cookies.size());
    }
  }

  @Test
  void answersEightWritesInFrontOfDisconnectAndThenCloses() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      server.image.hold();
      ByteArrayOutputStream requests = new ByteArrayOutputStream();
      for (int i = 0; i < 8; i++) {
        requests.writeBytes(write(0, i, i * 65536L, pattern(65536, i)));
      }
      client.send(requests.toByteArray(), request(0, DISC, 99, 0, 0));
      TestServer.eventually("a write began", () -> server.image.callsInProgress() > 0);
      server.image.release();
      client.simpleReplies(8).forEach(reply -> assertEquals(0, reply.error()));
      assertTrue(client.closedByServer());
      assertEquals(8, server.image.writes());
    }
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void answersEverythingInFrontOfHalfClose(Transport transport) throws Exception {
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server =
            new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT, transport);
        RawClient client = server.simple()) {
      ByteArrayOutputStream requests = new ByteArrayOutputStream();
      for (int i = 0; i < 300; i++) {
        requests.writeBytes(write(0, i, i * 4096L, pattern(4096, i)));
      }
      client.send(requests.toByteArray());
      client.socket.shutdownOutput();
      client.simpleReplies(300).forEach(reply -> assertEquals(0, reply.error()));
      assertTrue(client.closedByServer());
      assertEquals(300, server.image.writes());
    }
  }

  @Test
  void answersRequestsInFrontOfHalfCloseWhenTheRestIsCutOff() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      client.send(request(0, FLUSH, 1, 0, 0), request(0, WRITE, 2, 0, 4096), new byte[100]);
      client.socket.shutdownOutput();
      assertEquals(1, client.simpleReply().cookie());
      assertTrue(client.closedByServer());
      assertEquals(0, server.image.writes());
    }
  }

  @Test
  void livesOnWhenPeerResetsWithManyRepliesQueued() throws Exception {
    try (TestServer server = new TestServer()) {
      for (int round = 0; round < 4; round++) {
        RawClient client = server.simple();
        for (int i = 0; i < 32; i++) {
          client.send(request(0, READ, i, 0, 1 << 20));
        }
        var _ = client.simpleReply();
        client.reset();
      }
      TestServer.eventually("all is released", () -> server.server.bytesInFlight() == 0);
      TestServer.eventually("all are gone", () -> server.server.connectionCount() == 0);
      try (RawClient next = server.simple()) {
        assertEquals(0, next.errorOf(0, FLUSH, 0, 0));
      }
    }
  }

  @Test
  void startsNoWriteOfDeadConnectionAndLetsNobodyInBeforeTheOthersEnd() throws Exception {
    ServerLimits limits = ServerLimits.DEFAULT.withWorkerThreads(2);
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, limits)) {
      image.hold();
      RawClient client = server.simple();
      for (int i = 0; i < 20; i++) {
        client.send(write(0, i, i * 4096L, pattern(4096, i)));
      }
      TestServer.eventually("two writes are in", () -> image.callsInProgress() == 2);
      client.reset();
      TestServer.eventually("it is gone", () -> server.server.connectionCount() == 0);
      try (RawClient next = server.connect().greet(3)) {
        next.option(7, RawClient.infoData(""));
        next.socket.setSoTimeout(200);
        org.junit.jupiter.api.Assertions.assertThrows(
            java.net.SocketTimeoutException.class, next::optionReply);
        next.socket.setSoTimeout(20_000);
        image.release();
        next.optionReply();
        next.expectAck(7);
        assertEquals(2, image.writes(), "18 were not started");
      }
    }
  }

  @Test
  void closesOnBadRequestMagic() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      byte[] bad = request(0, READ, 1, 0, 512);
      bad[0] = 0;
      client.send(bad);
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void checksRangesUnsigned() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      long size = TestServer.DISK_BYTES;
      long[][] bad = {
        {size, 1},
        {size - 1, 2},
        {size + 1, 0},
        {Long.MIN_VALUE, 512},
        {-512, 1024},
        {-1, 1},
        {0, -1}
      };
      for (long[] range : bad) {
        for (int command : new int[] {READ, TRIM, CACHE}) {
          assertEquals(EINVAL, client.errorOf(0, command, range[0], (int) range[1]));
        }
        assertEquals(ENOSPC, client.errorOf(0, WRITE_ZEROES, range[0], (int) range[1]));
      }
      assertEquals(ENOSPC, client.errorOfWrite(0, size - 1, new byte[2]));
      assertEquals(ENOSPC, client.errorOfWrite(0, -512, new byte[1024]));
      assertEquals(0, client.errorOfWrite(0, size - 1, new byte[1]), "still in step");
    }
  }

  @Test
  void answersZeroLengthWithSuccess() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple();
        RawClient structured = server.structured()) {
      for (int command : new int[] {READ, WRITE, TRIM, CACHE, WRITE_ZEROES}) {
        assertEquals(0, client.errorOf(0, command, 0, 0), "command " + command);
        assertEquals(0, client.errorOf(FUA, command, TestServer.DISK_BYTES, 0));
      }
      structured.send(request(0, READ, 4, 0, 0));
      Chunk none = structured.chunk();
      assertEquals(0, none.type());
      assertEquals(1, none.flags());
      assertEquals(4, none.cookie());
      assertEquals(0, none.data().remaining());
    }
  }

  @Test
  void refusesUnknownCommandsAndFlagsAndStaysInStep() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple();
        RawClient structured = server.structured()) {
      assertEquals(EINVAL, client.errorOf(0, RawClient.BLOCK_STATUS, 0, 4096));
      assertEquals(EINVAL, client.errorOf(0, 8, 0, 4096));
      assertEquals(EINVAL, client.errorOf(0, 0xffff, 0, 4096));
      assertEquals(EINVAL, client.errorOf(RawClient.NO_HOLE, READ, 0, 512));
      assertEquals(EINVAL, client.errorOf(RawClient.DF, READ, 0, 512), "DF not negotiated");
      assertEquals(EINVAL, client.errorOf(RawClient.FAST_ZERO, TRIM, 0, 512));
      assertEquals(EINVAL, client.errorOf(0x8000, CACHE, 0, 512));
      assertEquals(EINVAL, client.errorOfWrite(RawClient.NO_HOLE, 0, pattern(300_000, 1)));
      assertEquals(0, client.errorOf(FUA, FLUSH, 0, 0));
      structured.send(request(RawClient.DF, READ, 1, 0, 512));
      assertEquals(1, structured.chunk().type());
      structured.send(request(RawClient.NO_HOLE, READ, 2, 0, 512));
      Chunk refused = structured.chunk();
      assertEquals(0x8001, refused.type());
      assertEquals(1, refused.flags());
    }
  }

  @Test
  void readOnlyExportRefusesChangesWithEperm() throws Exception {
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, true);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT);
        RawClient client = server.simple()) {
      assertEquals(EPERM, client.errorOfWrite(0, 0, new byte[4096]));
      assertEquals(EPERM, client.errorOf(0, TRIM, 0, 4096));
      assertEquals(EPERM, client.errorOf(0, WRITE_ZEROES, 0, 4096));
      assertEquals(0, client.errorOf(0, FLUSH, 0, 0));
      assertEquals(0, client.errorOf(FUA, READ, 0, 16));
      var _ = client.data(16);
    }
  }

  @Test
  void commitsForFlushAndFua() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(0, 0, new byte[512]));
      assertEquals(0, server.image.commits());
      assertEquals(0, client.errorOf(0, FLUSH, 0, 0));
      assertEquals(1, server.image.commits());
      assertEquals(0, client.errorOfWrite(FUA, 0, new byte[512]));
      assertEquals(2, server.image.commits());
      assertEquals(0, client.errorOf(FUA, TRIM, 0, 512));
      assertEquals(0, client.errorOf(FUA, WRITE_ZEROES, 0, 512));
      assertEquals(4, server.image.commits());
      assertEquals(0, client.errorOf(FUA, CACHE, 0, 512));
      assertEquals(4, server.image.commits(), "nothing was changed");
    }
  }

  @Test
  void writethroughCommitsEveryChange() throws Exception {
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITETHROUGH, ServerLimits.DEFAULT);
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(0, 0, new byte[512]));
      assertEquals(0, client.errorOf(0, TRIM, 0, 512));
      assertEquals(0, client.errorOf(0, WRITE_ZEROES, 0, 512));
      assertEquals(3, image.commits());
    }
  }

  @Test
  void waitingCommitsHoldNoWorker() throws Exception {
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    ServerLimits limits = ServerLimits.DEFAULT.withWorkerThreads(1);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, limits);
        RawClient client = server.simple()) {
      image.holdCommits();
      for (int i = 0; i < 5; i++) {
        client.send(write(FUA, i, 0, new byte[512]));
      }
      assertEquals(0, client.errorOf(0, CACHE, 0, 512), "the only worker is free");
      image.releaseCommits();
      client.simpleReplies(5).forEach(reply -> assertEquals(0, reply.error()));
    }
  }

  @Test
  void zeroesFastOrNotAtAll() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(0, 0, pattern(8192, 1)));
      assertEquals(ENOTSUP, client.errorOf(RawClient.FAST_ZERO, WRITE_ZEROES, 100, 512));
      assertEquals(pattern(8192, 1)[100], server.image.byteAt(100));
      assertEquals(0, client.errorOf(RawClient.FAST_ZERO, WRITE_ZEROES, 4096, 4096));
      assertEquals(0, server.image.byteAt(4096));
    }
  }

  @Test
  void passesOnHowZeroesAreToBeKept() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOf(0, WRITE_ZEROES, 0, 512));
      assertEquals(ZeroMode.MAY_UNMAP, server.image.lastZeroMode());
      assertEquals(0, client.errorOf(RawClient.NO_HOLE, WRITE_ZEROES, 0, 512));
      assertEquals(ZeroMode.KEEP_ALLOCATED, server.image.lastZeroMode());
    }
  }

  @Test
  void mapsWhatTheImageThrowsAndGoesOn() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple();
        RawClient structured = server.structured()) {
      server.image.failWith(new NoSpaceException("writing to memory: full"));
      assertEquals(ENOSPC, client.errorOfWrite(0, 0, new byte[512]));
      server.image.failWith(new IOException("reading memory: broken"));
      assertEquals(EIO, client.errorOf(0, READ, 0, 512));
      assertEquals(EIO, client.errorOf(0, FLUSH, 0, 0));
      structured.send(request(0, READ, 3, 0, 512));
      Chunk error = structured.chunk();
      assertEquals(0x8002, error.type());
      assertEquals(1, error.flags());
      assertEquals(EIO, error.data().getInt());
      byte[] text = new byte[error.data().getShort()];
      error.data().get(text);
      assertEquals("reading memory: broken", new String(text, StandardCharsets.UTF_8));
      assertEquals(0, error.data().getLong());
      server.image.failWith(null);
      server.image.breakWith(new IllegalStateException("a planted bug"));
      assertEquals(EIO, client.errorOf(0, READ, 0, 512));
      server.image.breakWith(null);
      assertEquals(0, client.errorOf(0, READ, 0, 16));
      var _ = client.data(16);
    }
  }
}
