package io.qnbd.server;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.util.List;
import java.util.stream.Collectors;

/**
 * The one line that {@code serve} prints when clients can connect: what is served, where, and how
 * to attach it. Scripts wait for it and read the port from it.
 */
final class ReadyLine {
  private ReadyLine() {}

  /**
   * One export of the line.
   *
   * @param name what the line calls it: the file, or the export's name where there are several
   * @param traits its size, format and whether it is read-only
   */
  record Item(String name, String traits) {}

  /**
   * The line for these exports at these addresses; the first address is the one to attach to.
   *
   * @param addresses where the server listens, with the ports that the system chose
   * @param tls whether clients must use TLS
   */
  static String of(List<Item> items, List<? extends SocketAddress> addresses, boolean tls) {
    boolean several = items.size() > 1;
    String exports =
        items.isEmpty()
            ? "nothing yet"
            : items.stream()
                .map(item -> "%s (%s)".formatted(item.name(), item.traits()))
                .collect(Collectors.joining(", "));
    String uris =
        addresses.stream()
            .map(address -> NbdUri.of(address, several ? "NAME" : "", tls))
            .collect(Collectors.joining(" and "));
    return Printable.text(
        "qnbd: serving %s at %s - attach with: nbd-client %s%s /dev/nbd0"
            .formatted(
                exports, uris, several ? "-N NAME " : "", clientArguments(addresses.getFirst())));
  }

  private static String clientArguments(SocketAddress address) {
    return switch (address) {
      case InetSocketAddress tcp -> clientHost(tcp.getAddress()) + " " + tcp.getPort();
      case UnixDomainSocketAddress unix ->
          "-unix " + quoted(unix.getPath().toAbsolutePath().toString());
      default -> throw new AssertionError("neither TCP nor Unix: " + address);
    };
  }

  /** A server on every address is reached from its own machine by the loopback's. */
  private static String clientHost(InetAddress address) {
    return NbdUri.hostText(
        address.isAnyLocalAddress() ? InetAddress.getLoopbackAddress() : address);
  }

  /** As one word for a shell. */
  private static String quoted(String word) {
    return word.matches("[A-Za-z0-9_@%+=:,./-]+") ? word : "'" + word.replace("'", "'\\''") + "'";
  }
}
