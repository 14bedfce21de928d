package io.qnbd.server;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.charset.StandardCharsets;

/** Where an export is, by the NBD project's URI specification (doc/uri.md). */
final class NbdUri {
  private NbdUri() {}

  /**
   * The URI of an export at an address that is listened on.
   *
   * @param export its name; empty for the default export
   * @param tls whether clients must use TLS
   */
  static String of(SocketAddress address, String export, boolean tls) {
    String scheme = tls ? "nbds" : "nbd";
    String name = encoded(export, "/-._~");
    return switch (address) {
      case InetSocketAddress tcp ->
          scheme + "://" + hostAndPort(tcp) + (name.isEmpty() ? "" : "/" + name);
      case UnixDomainSocketAddress unix ->
          scheme
              + "+unix:///"
              + name
              + "?socket="
              + encoded(unix.getPath().toAbsolutePath().toString(), "/-._~:@,=");
      default -> throw new AssertionError("neither TCP nor Unix: " + address);
    };
  }

  private static String hostAndPort(InetSocketAddress tcp) {
    String host = hostText(tcp.getAddress());
    return (host.indexOf(':') < 0 ? host : "[" + host + "]") + ":" + tcp.getPort();
  }

  /** An address as text, IPv6 without its longest run of zeroes where that is easily seen. */
  static String hostText(InetAddress address) {
    String text = address.getHostAddress();
    return text.equals("0:0:0:0:0:0:0:0") ? "::" : text.equals("0:0:0:0:0:0:0:1") ? "::1" : text;
  }

  private static String encoded(String text, String plain) {
    StringBuilder encoded = new StringBuilder();
    for (byte each : text.getBytes(StandardCharsets.UTF_8)) {
      char character = (char) (each & 0xff);
      boolean alphanumeric =
          character < 128 && (Character.isLetter(character) || Character.isDigit(character));
      if (alphanumeric || plain.indexOf(character) >= 0) {
        encoded.append(character);
      } else {
        encoded.append('%').append("%02X".formatted((int) character));
      }
    }
    return encoded.toString();
  }
}
