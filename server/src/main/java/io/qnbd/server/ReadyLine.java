package io.qnbd.server;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Path;
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
   */
  static String of(List<Item> items, List<? extends SocketAddress> addresses) {
    boolean several = items.size() > 1;
    String exports =
        items.stream()
            .map(item -> "%s (%s)".formatted(item.name(), item.traits()))
            .collect(Collectors.joining(", "));
    String uris =
        addresses.stream()
            .map(address -> uri(address, several ? "NAME" : ""))
            .collect(Collectors.joining(" and "));
    return Printable.text(
        "qnbd: serving %s at %s - attach with: nbd-client %s%s /dev/nbd0"
            .formatted(
                exports, uris, several ? "-N NAME " : "", clientArguments(addresses.getFirst())));
  }

  /** The URI of an export by the NBD URI specification. */
  static String uri(SocketAddress address, String name) {
    return switch (address) {
      case InetSocketAddress tcp ->
          "nbd://" + hostAndPort(tcp) + (name.isEmpty() ? "" : "/" + name);
      case UnixDomainSocketAddress unix ->
          "nbd+unix:///" + name + "?socket=" + encoded(unix.getPath().toAbsolutePath());
      default -> throw new AssertionError("neither TCP nor Unix: " + address);
    };
  }

  private static String hostAndPort(InetSocketAddress tcp) {
    String host = hostText(tcp.getAddress());
    return (host.indexOf(':') < 0 ? host : "[" + host + "]") + ":" + tcp.getPort();
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
    return hostText(address.isAnyLocalAddress() ? InetAddress.getLoopbackAddress() : address);
  }

  private static String hostText(InetAddress address) {
    String text = address.getHostAddress();
    return text.equals("0:0:0:0:0:0:0:0") ? "::" : text.equals("0:0:0:0:0:0:0:1") ? "::1" : text;
  }

  private static String encoded(Path path) {
    try {
      return new URI(null, null, path.toString(), null)
          .getRawPath()
          .replace("+", "%2B")
          .replace("&", "%26");
    } catch (URISyntaxException e) {
      throw new AssertionError("every absolute path can be encoded: " + path, e);
    }
  }

  /** As one word for a shell. */
  private static String quoted(String word) {
    return word.matches("[A-Za-z0-9_@%+=:,./-]+") ? word : "'" + word.replace("'", "'\\''") + "'";
  }
}
