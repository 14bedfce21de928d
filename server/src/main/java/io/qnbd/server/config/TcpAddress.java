package io.qnbd.server.config;

import io.qnbd.server.net.ListenAddress;

/**
 * A TCP address to listen on, as it is typed: {@code HOST}, {@code HOST:PORT}, {@code [IPV6]:PORT},
 * or {@code :PORT} for all addresses of the machine.
 */
public final class TcpAddress {
  private TcpAddress() {}

  /** The port that IANA registered for NBD. */
  public static final int PORT_DEFAULT = 10809;

  /** Reached from this machine only. */
  public static final ListenAddress.Tcp LOOPBACK = new ListenAddress.Tcp("127.0.0.1", PORT_DEFAULT);

  private static final int PORT_MAX = 65535;

  /**
   * Reads an address; without a port it is {@link #PORT_DEFAULT}.
   *
   * @throws IllegalArgumentException with a sentence, when it is none of these
   */
  public static ListenAddress.Tcp parse(String text) {
    int closing = text.indexOf(']');
    boolean bracketed = text.startsWith("[") && closing > 0;
    String host = bracketed ? text.substring(1, closing) : beforeColon(text);
    String rest = text.substring(bracketed ? closing + 1 : host.length());
    if (host.isEmpty() && (bracketed || rest.isEmpty())) {
      throw new IllegalArgumentException(
          "the address '" + text + "' has no host (:" + PORT_DEFAULT + " listens on all of them)");
    }
    if (rest.isEmpty()) {
      return new ListenAddress.Tcp(host, PORT_DEFAULT);
    }
    if (rest.charAt(0) != ':' || rest.indexOf(':', 1) >= 0) {
      throw new IllegalArgumentException(
          "write an IPv6 address in brackets: [::1]:" + PORT_DEFAULT + ", not " + text);
    }
    return new ListenAddress.Tcp(host, port(text, rest.substring(1)));
  }

  private static String beforeColon(String text) {
    int colon = text.indexOf(':');
    return colon < 0 ? text : text.substring(0, colon);
  }

  private static int port(String text, String digits) {
    if (!digits.matches("[0-9]{1,5}") || Integer.parseInt(digits) > PORT_MAX) {
      throw new IllegalArgumentException(
          "the port in '" + text + "' is not a number from 0 to " + PORT_MAX);
    }
    return Integer.parseInt(digits);
  }
}
