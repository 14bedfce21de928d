package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class StaleSocketTest {
  @TempDir private Path directory = Path.of("");

  @Test
  void removesASocketOnWhichNobodyListens() throws IOException {
    Path path = directory.resolve("q.sock");
    try (ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      channel.bind(UnixDomainSocketAddress.of(path));
    }
    assertTrue(Files.exists(path));
    StaleSocket.remove(path);
    assertFalse(Files.exists(path));
  }

  @Test
  void refusesASocketOnWhichSomebodyListens() throws IOException {
    Path path = directory.resolve("q.sock");
    try (ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      channel.bind(UnixDomainSocketAddress.of(path));
      assertThrows(IOException.class, () -> StaleSocket.remove(path));
    }
    assertTrue(Files.exists(path));
  }

  @Test
  void leavesEverythingElseAlone() throws IOException {
    Path file = Files.writeString(directory.resolve("file"), "data");
    Path link = Files.createSymbolicLink(directory.resolve("link"), file);
    for (Path path : new Path[] {file, link, directory, directory.resolve("missing")}) {
      StaleSocket.remove(path);
    }
    assertTrue(Files.exists(file) && Files.exists(link, LinkOption.NOFOLLOW_LINKS));
    StaleSocket.remove(Path.of("/dev/null"));
    assertTrue(Files.exists(Path.of("/dev/null")));
  }
}
