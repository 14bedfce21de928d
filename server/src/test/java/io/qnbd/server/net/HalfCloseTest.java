package io.qnbd.server.net;

import static io.qnbd.server.net.RawClient.CACHE;
import static io.qnbd.server.net.RawClient.READ;
import static io.qnbd.server.net.RawClient.request;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.netty.channel.unix.DomainSocketAddress;
import io.qnbd.image.CacheMode;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * A client that sends more requests than are taken at a time, and ends its input while it is not
 * being read, is owed all replies. On epoll its socket then has no interest left for a while.
 */
@Timeout(60)
final class HalfCloseTest {
  private static final int REQUESTS = 300;
  private static final int ROUNDS = 3;

  enum Family {
    TCP,
    UNIX
  }

  private static List<Arguments> halfClosing() {
    List<Arguments> all = new ArrayList<>();
    for (Transport transport : Transport.values()) {
      all.add(Arguments.of(transport, Family.TCP));
      if (transport.halfClosesUnix()) {
        all.add(Arguments.of(transport, Family.UNIX));
      }
    }
    return all;
  }

  /** The next interest is in reading: the replies fit into the socket at once. */
  @ParameterizedTest
  @MethodSource("halfClosing")
  void readsOnAfterHalfCloseDuringPause(Transport transport, Family family, @TempDir Path directory)
      throws Exception {
    answersAll(transport, family, directory, CACHE, 4096, 0);
  }

  /** The next interest is in writing: one reply alone is more than the socket takes. */
  @ParameterizedTest
  @MethodSource("halfClosing")
  void writesOnAfterHalfCloseDuringPause(
      Transport transport, Family family, @TempDir Path directory) throws Exception {
    answersAll(transport, family, directory, READ, 1 << 18, 1 << 18);
  }

  private static void answersAll(
      Transport transport,
      Family family,
      Path directory,
      int command,
      int bytes,
      int replyDataBytes)
      throws Exception {
    ListenAddress address =
        switch (family) {
          case TCP -> new ListenAddress.Tcp("127.0.0.1", 0);
          case UNIX -> new ListenAddress.Unix(directory.resolve("nbd.sock"));
        };
    MemoryImage image = new MemoryImage(TestServer.DISK_BYTES, false);
    try (TestServer server =
        new TestServer(image, CacheMode.WRITEBACK, ServerLimits.DEFAULT, transport, address)) {
      for (int round = 0; round < ROUNDS; round++) {
        image.hold();
        try (SocketChannel client = SocketChannel.open(clientAddress(server.address()))) {
          DataInputStream in = new DataInputStream(Channels.newInputStream(client));
          handshake(client, in);
          ByteBuffer requests = ByteBuffer.allocate(28 * REQUESTS);
          for (int i = 0; i < REQUESTS; i++) {
            requests.put(request(0, command, i, 0, bytes));
          }
          send(client, requests);
          TestServer.eventually("a call began", () -> image.callsInProgress() > 0);
          client.shutdownOutput();
          Thread.sleep(100); // The server sees the half-close; nothing shows when it has.
          image.release();
          assertEquals(REQUESTS, replies(in, replyDataBytes).size(), "round " + round);
        }
      }
    }
  }

  private static SocketAddress clientAddress(SocketAddress listening) {
    return listening instanceof DomainSocketAddress unix
        ? UnixDomainSocketAddress.of(unix.path())
        : listening;
  }

  /** Chooses the default export by EXPORT_NAME, without the zeroes at the end of the answer. */
  private static void handshake(SocketChannel client, DataInputStream in) throws IOException {
    ByteBuffer choice = ByteBuffer.allocate(20);
    choice.putInt(3).putLong(0x49484156454f5054L).putInt(1).putInt(0);
    in.readFully(new byte[18]);
    send(client, choice);
    assertEquals(TestServer.DISK_BYTES, in.readLong());
    var _ = in.readShort();
  }

  private static void send(SocketChannel client, ByteBuffer bytes) throws IOException {
    bytes.flip();
    while (bytes.hasRemaining()) {
      var _ = client.write(bytes);
    }
  }

  /** The cookies of all simple replies until the server closes. */
  private static Set<Long> replies(DataInputStream in, int dataBytes) throws IOException {
    Set<Long> cookies = new HashSet<>();
    while (true) {
      try {
        assertEquals(0x67446698, in.readInt());
      } catch (EOFException _) {
        return cookies;
      }
      assertEquals(0, in.readInt());
      cookies.add(in.readLong());
      in.readFully(new byte[dataBytes]);
    }
  }
}
