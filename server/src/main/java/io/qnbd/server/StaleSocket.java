package io.qnbd.server;

import java.io.IOException;
import java.net.ConnectException;
import java.net.SocketException;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;

/** What a server that was killed leaves behind: a socket on which nobody listens. */
final class StaleSocket {
  private StaleSocket() {}

  private static final int FILE_TYPE_MASK = 0170000;
  private static final int FILE_TYPE_SOCKET = 0140000;

  /** Removes {@code path} if it is a socket that refuses connections; leaves all else alone. */
  static void remove(Path path) throws IOException {
    if (!isSocket(path)) {
      return;
    }
    try (SocketChannel _ = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
      throw new IOException("listening on " + path + ": another server does already");
    } catch (ConnectException _) {
      Files.delete(path);
    } catch (SocketException _) {
      // It cannot be said whether anybody listens; another user's it may be. It stays, and whoever
      // binds next says that it is there.
    }
  }

  /** Asked of the file itself: a device or a pipe refuses connections too and must stay. */
  private static boolean isSocket(Path path) throws IOException {
    if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      return false;
    }
    int mode = (int) Files.getAttribute(path, "unix:mode", LinkOption.NOFOLLOW_LINKS);
    return (mode & FILE_TYPE_MASK) == FILE_TYPE_SOCKET;
  }
}
