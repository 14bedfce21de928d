package io.qnbd.server.remote;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;

/** What a server may answer our client: greetings and replies that a fuzzer makes up. */
final class ServerFuzzTest {
  private static final int READ_BYTES = 512;

  @FuzzTest
  void answersAreTakenOrRefused(byte[] bytes) throws IOException {
    Path directory = Files.createTempDirectory("qnbd-fuzz");
    Path socket = directory.resolve("s");
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(UnixDomainSocketAddress.of(socket));
      CompletableFuture<SocketChannel> answering =
          CompletableFuture.supplyAsync(() -> answer(server, bytes));
      RemoteUri uri = RemoteUri.parse("nbd+unix:///disk?socket=" + socket);
      try (RemoteConnection connection = RemoteConnection.open(uri)) {
        ByteBuffer target = ByteBuffer.allocateDirect(READ_BYTES);
        connection.request(
            RemoteConnection.CMD_READ, 0, new Pending(0, READ_BYTES, target, null), null);
        Pending status = new Pending(0, READ_BYTES, null, (_, _) -> {});
        connection.request(RemoteConnection.CMD_BLOCK_STATUS, 0, status, null);
      } catch (IOException e) {
        if (String.valueOf(e.getMessage()).length() < 5) {
          throw new AssertionError("no sentence", e);
        }
      } finally {
        answering.join().close();
      }
    } finally {
      Files.deleteIfExists(socket);
      Files.delete(directory);
    }
  }

  /** Says everything at once, then nothing more. */
  private static SocketChannel answer(ServerSocketChannel server, byte[] bytes) {
    try {
      SocketChannel channel = server.accept();
      ByteBuffer all = ByteBuffer.wrap(bytes);
      while (all.hasRemaining()) {
        channel.write(all);
      }
      channel.shutdownOutput();
      return channel;
    } catch (IOException e) {
      throw new AssertionError("the test's own socket", e);
    }
  }
}
