package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.FLUSH;
import static io.qnbd.server.net.RawClient.READ;
import static io.qnbd.server.net.RawClient.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.server.net.RawClient.OptionReply;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class HandshakeOverSocketTest {
  private static final int UNSUPPORTED = 0x80000001;
  private static final int INVALID = 0x80000003;
  private static final int UNKNOWN = 0x80000006;
  private static final int TOO_BIG = 0x80000009;
  private static final int FLAGS_EXPECTED = 1 | 4 | 8 | 32 | 64 | 256 | 1024 | 2048;
  private static final int SEND_DF = 128;

  @Test
  void exportNameAnswersSizeAndFlagsAndPadding() throws Exception {
    try (TestServer server = new TestServer();
        RawClient padded = server.connect().greet(1);
        RawClient bare = server.connect().greet(3);
        RawClient old = server.connect().greet(0)) {
      for (RawClient client : List.of(padded, bare, old)) {
        client.option(1, "disk".getBytes(StandardCharsets.UTF_8));
        assertEquals(TestServer.DISK_BYTES, client.in.readLong());
        assertEquals(FLAGS_EXPECTED, client.in.readUnsignedShort());
        if (client != bare) {
          assertEquals(ByteBuffer.allocate(124), ByteBuffer.wrap(client.data(124)));
        }
        assertEquals(0, client.errorOf(0, FLUSH, 0, 0));
      }
    }
  }

  @Test
  void exportNameOfUnknownExportCloses() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      client.option(1, "disc".getBytes(StandardCharsets.UTF_8));
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void clientWithoutFixedNewstyleMayOnlyNameAnExport() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(0)) {
      client.option(3, new byte[0]);
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void unknownClientFlagsClose() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(7)) {
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void abortIsAcknowledgedAndThenCloses() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      client.option(2, new byte[10]);
      client.expectAck(2);
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void listNamesExportWithDescription() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      client.option(3, new byte[0]);
      OptionReply reply = client.optionReply();
      assertEquals(2, reply.type());
      assertEquals(4, reply.data().getInt());
      assertEquals("diska test disk", StandardCharsets.UTF_8.decode(reply.data()).toString());
      client.expectAck(3);
    }
  }

  @Test
  void infoAndGoSayTheSame() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      client.option(8, new byte[0]);
      client.expectAck(8);
      List<OptionReply> info = ask(client, 6);
      List<OptionReply> go = ask(client, 7);
      assertEquals(4, info.size());
      for (int i = 0; i < info.size(); i++) {
        assertEquals(info.get(i).data(), go.get(i).data());
      }
      ByteBuffer export = info.getFirst().data();
      assertEquals(0, export.getShort());
      assertEquals(TestServer.DISK_BYTES, export.getLong());
      assertEquals(FLAGS_EXPECTED | SEND_DF, export.getShort());
      ByteBuffer sizes = info.getLast().data();
      assertEquals(3, sizes.getShort());
      assertEquals(1, sizes.getInt());
      assertEquals(65536, sizes.getInt());
      assertEquals(64 << 20, sizes.getInt());
      client.send(request(0, READ, 1, 0, 512));
      assertEquals(1, client.chunk().type());
    }
  }

  private static List<OptionReply> ask(RawClient client, int option) throws IOException {
    client.option(option, RawClient.infoData("", 1, 2, 3, 999));
    List<OptionReply> replies = new ArrayList<>();
    while (true) {
      OptionReply reply = client.optionReply();
      assertEquals(option, reply.option());
      if (reply.type() == RawClient.ACK) {
        return replies;
      }
      replies.add(reply);
    }
  }

  @Test
  void unknownOptionsOfAnySizeStayInStep() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      for (int option : new int[] {4, 12, 0x7fffffff}) {
        for (int bytes : new int[] {0, 4, 1 << 20}) {
          client.option(option, new byte[bytes]);
          OptionReply reply = client.optionReply();
          assertEquals(option, reply.option());
          assertEquals(UNSUPPORTED, reply.type());
        }
      }
      client.option(99, new byte[32 << 20]);
      assertEquals(UNSUPPORTED, client.optionReply().type());
      client.option(3, new byte[0]);
      assertEquals(2, client.optionReply().type());
    }
  }

  @Test
  void optionDataBeyond32MiBCloses() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      byte[] header =
          ByteBuffer.allocate(16)
              .putLong(0x49484156454f5054L)
              .putInt(99)
              .putInt((32 << 20) + 1)
              .array();
      client.send(header);
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void lyingOptionsAreRefusedAndStayInStep() throws Exception {
    byte[] good = RawClient.infoData("disk", 3);
    byte[] longName = good.clone();
    longName[3] = 5;
    byte[] hugeName = good.clone();
    hugeName[0] = (byte) 0xff;
    byte[] moreKinds = good.clone();
    moreKinds[9] = 2;
    byte[] trailing = Arrays.copyOf(good, good.length + 1);
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      for (byte[] lie :
          List.of(longName, hugeName, moreKinds, trailing, new byte[0], new byte[5])) {
        for (int option : new int[] {6, 7}) {
          client.option(option, lie);
          assertEquals(INVALID, client.optionReply().type());
        }
      }
      client.option(3, new byte[1]);
      assertEquals(INVALID, client.optionReply().type());
      client.option(8, new byte[1]);
      assertEquals(INVALID, client.optionReply().type());
      client.option(7, RawClient.infoData("x".repeat(4097)));
      assertEquals(INVALID, client.optionReply().type());
      client.option(7, RawClient.infoData("x".repeat(4096)));
      assertEquals(UNKNOWN, client.optionReply().type());
      client.option(7, RawClient.infoData("di\0sk"));
      assertEquals(INVALID, client.optionReply().type());
      client.option(7, new byte[65537]);
      assertEquals(TOO_BIG, client.optionReply().type());
      client.option(7, good);
      assertEquals(3, client.optionReply().type());
    }
  }

  @Test
  void optionsBeyondTheCapClose() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      for (int i = 0; i < 2048; i++) {
        client.option(99, new byte[0]);
        assertEquals(UNSUPPORTED, client.optionReply().type());
      }
      client.option(99, new byte[0]);
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void badOptionMagicCloses() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      client.send(new byte[16]);
      assertTrue(client.closedByServer());
    }
  }

  @Test
  void requestsSentTogetherWithGoAreServed() throws Exception {
    try (TestServer server = new TestServer();
        RawClient client = server.connect().greet(3)) {
      byte[] data = RawClient.infoData("disk");
      byte[] go =
          ByteBuffer.allocate(16 + data.length)
              .putLong(0x49484156454f5054L)
              .putInt(7)
              .putInt(data.length)
              .put(data)
              .array();
      client.send(go, request(0, FLUSH, 1, 0, 0), RawClient.write(0, 2, 0, new byte[512]));
      assertEquals(3, client.optionReply().type());
      client.expectAck(7);
      client.simpleReplies(2).forEach(reply -> assertEquals(0, reply.error()));
    }
  }

  @Test
  void silentAndSlowClientsAreCutOffAtTheDeadline() throws Exception {
    ServerLimits limits = ServerLimits.DEFAULT.withHandshakeDeadline(Duration.ofMillis(300));
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, limits);
        RawClient served = server.simple();
        RawClient silent = server.connect();
        RawClient talking = server.connect().greet(3)) {
      long start = System.nanoTime();
      assertThrows(
          IOException.class,
          () -> {
            while (true) {
              talking.option(99, new byte[0]);
              var _ = talking.optionReply();
              Thread.sleep(20);
            }
          });
      var _ = silent.data(18);
      assertTrue(silent.closedByServer());
      assertTrue(System.nanoTime() - start < Duration.ofSeconds(5).toNanos());
      assertEquals(0, served.errorOf(0, FLUSH, 0, 0), "the deadline is for handshakes only");
    }
  }

  @Test
  void connectionsOverTheLimitAreClosedAtOnce() throws Exception {
    ServerLimits limits = ServerLimits.DEFAULT.withConnectionsMax(2);
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server = new TestServer(image, CacheMode.WRITEBACK, limits);
        RawClient first = server.simple()) {
      try (RawClient second = server.simple();
          RawClient third = server.connect()) {
        assertTrue(third.closedByServer());
        assertEquals(0, second.errorOf(0, FLUSH, 0, 0));
      }
      TestServer.eventually("a place is free", () -> server.server.connectionCount() == 1);
      try (RawClient fourth = server.simple()) {
        assertEquals(0, fourth.errorOf(0, FLUSH, 0, 0));
      }
      assertEquals(0, first.errorOf(0, FLUSH, 0, 0));
    }
  }

  @Test
  void aClientThatLeavesAtAnyByteHarmsNobody() throws Exception {
    byte[] data = RawClient.infoData("disk");
    byte[] conversation =
        RawClient.join(
            new byte[] {0, 0, 0, 3},
            ByteBuffer.allocate(16)
                .putLong(0x49484156454f5054L)
                .putInt(7)
                .putInt(data.length)
                .array(),
            data,
            RawClient.write(0, 1, 0, new byte[40]),
            request(0, READ, 2, 0, 4096));
    try (TestServer server = new TestServer()) {
      for (int cut = 0; cut <= conversation.length; cut++) {
        RawClient client = server.connect();
        client.send(Arrays.copyOf(conversation, cut));
        if (cut % 2 == 0) {
          client.reset();
        } else {
          client.close();
        }
      }
      TestServer.eventually("all are gone", () -> server.server.connectionCount() == 0);
      try (RawClient next = server.structured()) {
        assertEquals(0, next.errorOf(0, FLUSH, 0, 0));
      }
    }
  }
}
