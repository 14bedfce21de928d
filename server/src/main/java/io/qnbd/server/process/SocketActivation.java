package io.qnbd.server.process;

import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.os.SystemCalls;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * Listening sockets that systemd, or who speaks its protocol (sd_listen_fds(3)), has handed over:
 * descriptors from 3 on.
 *
 * <pre>
 * LISTEN_PID      whom they are for; others ignore them
 * LISTEN_FDS      how many there are
 * LISTEN_FDNAMES  what they are called, with colons between; optional
 * </pre>
 */
public final class SocketActivation {
  /** The variables that a program which is started by this one must not see. */
  static final List<String> VARIABLES = List.of("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES");

  private static final int FIRST_FD = 3;

  /** More than anyone has addresses; a larger number is a mistake. */
  static final int SOCKETS_MAX = 64;

  private SocketActivation() {}

  /**
   * The sockets handed over to the process {@code pid}, this one; none if there are none or if they
   * are for another.
   *
   * @throws IOException with one sentence, when one of them is no listening TCP or unix socket
   */
  public static List<ListenAddress.Inherited> sockets(Map<String, String> environment, long pid)
      throws IOException {
    if (!Long.toString(pid).equals(environment.get("LISTEN_PID"))) {
      return List.of();
    }
    int count = count(environment.getOrDefault("LISTEN_FDS", "0"));
    String[] names = environment.getOrDefault("LISTEN_FDNAMES", "").split(":", -1);
    List<ListenAddress.Inherited> sockets = new ArrayList<>();
    for (int index = 0; index < count; index++) {
      String name = index < names.length ? names[index] : "";
      sockets.add(socket(FIRST_FD + index, name));
    }
    return List.copyOf(sockets);
  }

  private static int count(String text) throws IOException {
    if (!text.matches("[0-9]{1,4}") || Integer.parseInt(text) > SOCKETS_MAX) {
      throw new IOException(
          "socket activation: LISTEN_FDS is '%s', expected a number from 0 to %d"
              .formatted(text, SOCKETS_MAX));
    }
    return Integer.parseInt(text);
  }

  private static ListenAddress.Inherited socket(int fd, String name) throws IOException {
    String called =
        "the socket handed over as descriptor " + fd + (name.isEmpty() ? "" : " (" + name + ")");
    int type = SystemCalls.socketOption(fd, SystemCalls.SO_TYPE);
    if (type == -SystemCalls.ENOTSOCK || type == -SystemCalls.EBADF) {
      throw new IOException(
          "socket activation: descriptor " + fd + " is no socket; LISTEN_FDS counts too many");
    }
    int family = SystemCalls.socketOption(fd, SystemCalls.SO_DOMAIN);
    boolean known =
        family == SystemCalls.AF_INET
            || family == SystemCalls.AF_INET6
            || family == SystemCalls.AF_UNIX;
    if (type != SystemCalls.SOCK_STREAM || !known) {
      throw new IOException(
          called + " is neither a TCP nor a unix stream socket; use ListenStream=");
    }
    if (SystemCalls.socketOption(fd, SystemCalls.SO_ACCEPTCONN) != 1) {
      throw new IOException(
          called + " does not listen; qnbd accepts connections itself: use Accept=no");
    }
    return new ListenAddress.Inherited(fd, called, address(SystemCalls.socketName(fd), called));
  }

  /**
   * Reads what the kernel says that a socket is bound to.
   *
   * <pre>
   * sockaddr_in   family u16, port u16 big-endian, address 4 bytes
   * sockaddr_in6  family u16, port u16 big-endian, flow 4 bytes, address 16 bytes, scope u32
   * sockaddr_un   family u16, path up to a zero byte; an abstract name begins with one
   * </pre>
   */
  static SocketAddress address(byte[] sockaddr, String called) throws IOException {
    ByteBuffer in = ByteBuffer.wrap(sockaddr).order(ByteOrder.nativeOrder());
    int family = in.remaining() < 2 ? -1 : in.getShort(0);
    return switch (family) {
      case SystemCalls.AF_INET -> tcp(in, Arrays.copyOfRange(sockaddr, 4, 8));
      case SystemCalls.AF_INET6 -> tcp(in, Arrays.copyOfRange(sockaddr, 8, 24));
      case SystemCalls.AF_UNIX -> UnixDomainSocketAddress.of(path(sockaddr, called));
      default -> throw new IOException(called + " has no address");
    };
  }

  private static InetSocketAddress tcp(ByteBuffer in, byte[] address) throws UnknownHostException {
    int port = Short.toUnsignedInt(in.order(ByteOrder.BIG_ENDIAN).getShort(2));
    return new InetSocketAddress(InetAddress.getByAddress(address), port);
  }

  private static Path path(byte[] sockaddr, String called) throws IOException {
    int end = 2;
    while (end < sockaddr.length && sockaddr[end] != 0) {
      end++;
    }
    if (end == 2) {
      throw new IOException(
          called + " is a unix socket without a path, which no NBD client can name");
    }
    return Path.of(new String(sockaddr, 2, end - 2, StandardCharsets.UTF_8));
  }
}
