package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.FLUSH;
import static io.qnbd.server.net.RawClient.READ;
import static io.qnbd.server.net.RawClient.WRITE;
import static io.qnbd.server.net.RawClient.request;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.CacheMode;
import io.qnbd.image.NoSpaceException;
import io.qnbd.server.net.RawClient.Chunk;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

/** Requests that an event loop does itself, and those that it leaves to the workers. */
final class LoopCallsTest {
  private static final int BYTES = 8192;
  private static final int EIO = 5;
  private static final int ENOSPC = 28;
  private static final int FUA = 1;
  private static final int DATA = 1;
  private static final int HOLE = 2;

  private static byte[] filled(int bytes) {
    byte[] data = new byte[bytes];
    Arrays.fill(data, (byte) 0x5a);
    return data;
  }

  @Test
  void smallRequestsAreDoneByTheLoop() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(0, BYTES, filled(BYTES)));
      client.send(request(0, READ, 1, BYTES, BYTES));
      assertEquals(0, client.simpleReply().error());
      assertArrayEquals(filled(BYTES), client.data(BYTES));
      assertEquals(1, server.image.quickWrites());
      assertEquals(1, server.image.quickReads());
    }
  }

  @Test
  void largeOnesAreNot() throws Exception {
    int bytes = LoopCalls.BYTES_MAX + 1;
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(0, 0, filled(bytes)));
      client.send(request(0, READ, 1, 0, bytes));
      assertEquals(0, client.simpleReply().error());
      assertArrayEquals(filled(bytes), client.data(bytes));
      assertEquals(0, server.image.quickWrites());
      assertEquals(0, server.image.quickReads());
    }
  }

  @Test
  void noneIsWithTheFastPathOff() throws Exception {
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    ServerLimits limits = ServerLimits.DEFAULT.withFastPath(false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, limits);
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(0, 0, filled(BYTES)));
      client.send(request(0, READ, 1, 0, BYTES));
      assertEquals(0, client.simpleReply().error());
      assertArrayEquals(filled(BYTES), client.data(BYTES));
      assertEquals(0, image.quickWrites());
      assertEquals(0, image.quickReads());
    }
  }

  @Test
  void whatWouldWaitGoesToAWorkerAndTheLoopGoesOn() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple();
        RawClient other = server.simple()) {
      server.image.hold();
      client.send(request(0, READ, 1, 0, BYTES));
      TestServer.eventually("a worker is in the image", () -> server.image.callsInProgress() == 1);
      assertEquals(0, other.errorOf(0, FLUSH, 0, 0));
      server.image.release();
      assertEquals(0, client.simpleReply().error());
      assertArrayEquals(new byte[BYTES], client.data(BYTES));
    }
  }

  @Test
  void zeroesAreAHoleInChunksAndBytesOtherwise() throws Exception {
    try (TestServer server = new TestServer();
        RawClient simple = server.simple();
        RawClient structured = server.structured()) {
      simple.send(request(0, READ, 1, 0, BYTES));
      assertEquals(0, simple.simpleReply().error());
      assertArrayEquals(new byte[BYTES], simple.data(BYTES));
      structured.send(request(0, READ, 2, 0, BYTES));
      Chunk hole = structured.chunk();
      assertEquals(HOLE, hole.type());
      structured.send(request(0, READ, 3, 0, 512));
      Chunk tiny = structured.chunk();
      assertEquals(DATA, tiny.type(), "a hole of 512 bytes saves nothing");
      assertEquals(512 + 8, tiny.data().remaining());
    }
  }

  @Test
  void aFailedWriteIsAnsweredWithItsError() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      server.image.failWith(new NoSpaceException("the disk is full"));
      assertEquals(ENOSPC, client.errorOfWrite(0, 0, filled(BYTES)));
      server.image.failWith(null);
      server.image.breakWith(new IllegalStateException("a bug"));
      assertEquals(EIO, client.errorOfWrite(0, 0, filled(BYTES)));
      assertEquals(EIO, client.errorOf(0, READ, 0, BYTES));
      server.image.breakWith(null);
      assertEquals(0, client.errorOfWrite(0, 0, filled(BYTES)), "the connection lives");
    }
  }

  @Test
  void aWriteWithFuaIsCommittedBeforeItsReply() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.simple()) {
      assertEquals(0, client.errorOfWrite(FUA, 0, filled(BYTES)));
      assertEquals(1, server.image.quickWrites());
      assertEquals(1, server.image.commits());
    }
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITETHROUGH, ServerLimits.DEFAULT);
        RawClient client = server.simple()) {
      client.send(RawClient.request(0, WRITE, 1, 0, BYTES));
      client.send(filled(BYTES));
      assertEquals(0, client.simpleReply().error());
      assertEquals(1, image.commits());
    }
  }
}
