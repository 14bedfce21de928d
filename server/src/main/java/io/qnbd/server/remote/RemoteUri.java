package io.qnbd.server.remote;

import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.UnixDomainSocketAddress;
import java.nio.file.InvalidPathException;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Where an export is, by the NBD project's URI specification (doc/uri.md).
 *
 * @param address a TCP address, whose name is not looked up yet, or a Unix socket
 * @param export its name; empty for the default export
 * @param text as it was typed, for messages
 */
public record RemoteUri(SocketAddress address, String export, String text) {
  private static final Pattern SCHEME = Pattern.compile("nbds?(\\+[a-z]+)?:.*");
  private static final int DEFAULT_PORT = 10809;

  /** Whether the text is meant as a URI of an NBD export and not as a path. */
  public static boolean looksLike(String text) {
    return SCHEME.matcher(text).matches();
  }

  /**
   * The parts of a URI.
   *
   * @throws IllegalArgumentException with a sentence, when it is none, or of a kind that is not
   *     supported
   */
  public static RemoteUri parse(String text) {
    URI uri;
    try {
      uri = new URI(text);
    } catch (URISyntaxException e) {
      throw new IllegalArgumentException("not an NBD URI: " + text + " (" + e.getReason() + ")", e);
    }
    String scheme = String.valueOf(uri.getScheme());
    return switch (scheme) {
      case "nbd" -> tcp(uri, text);
      case "nbd+unix" -> unix(uri, text);
      case "nbds", "nbds+unix" ->
          throw new IllegalArgumentException(
              text
                  + ": TLS is not supported by this client; go through a tunnel, or copy with"
                  + " nbdcopy");
      default ->
          throw new IllegalArgumentException(
              text + ": unknown transport " + scheme + ", expected nbd or nbd+unix");
    };
  }

  private static RemoteUri tcp(URI uri, String text) {
    String host = uri.getHost();
    if (host == null) {
      throw new IllegalArgumentException(text + ": names no host; write nbd://HOST[:PORT]/EXPORT");
    }
    String plain = host.startsWith("[") ? host.substring(1, host.length() - 1) : host;
    int port = uri.getPort() < 0 ? DEFAULT_PORT : uri.getPort();
    if (port > 65535) {
      throw new IllegalArgumentException(text + ": there is no port " + port);
    }
    return new RemoteUri(InetSocketAddress.createUnresolved(plain, port), export(uri), text);
  }

  private static RemoteUri unix(URI uri, String text) {
    String socket = parameter(uri, "socket");
    if (socket == null) {
      throw new IllegalArgumentException(
          text + ": names no socket; write nbd+unix:///EXPORT?socket=PATH");
    }
    try {
      return new RemoteUri(UnixDomainSocketAddress.of(socket), export(uri), text);
    } catch (InvalidPathException e) {
      throw new IllegalArgumentException(text + ": not a file name: '" + socket + "'", e);
    }
  }

  private static String export(URI uri) {
    String path = uri.getPath();
    return path == null || path.isEmpty() ? "" : path.substring(1);
  }

  private static @Nullable String parameter(URI uri, String name) {
    String query = uri.getRawQuery();
    if (query == null) {
      return null;
    }
    for (String each : query.split("[&;]", -1)) {
      if (each.startsWith(name + "=")) {
        // Decoded as a path is: a plus is a plus.
        String value = URI.create("x:/." + each.substring(name.length() + 1)).getPath();
        return value.substring("/.".length());
      }
    }
    return null;
  }
}
