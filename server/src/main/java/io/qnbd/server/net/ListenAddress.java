package io.qnbd.server.net;

import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** Where a server listens. */
public sealed interface ListenAddress {

  /**
   * A TCP port.
   *
   * @param host a name or an address of this machine, where a name means all of its addresses that
   *     this machine has; {@code ::} for all of the machine's addresses, of IPv4 too; empty for the
   *     same, also where there is no IPv6
   * @param port 0 lets the system choose
   */
  record Tcp(String host, int port) implements ListenAddress {
    public Tcp {
      if (port < 0 || port > 65535) {
        throw new IllegalArgumentException("port is " + port + ", expected 0 to 65535");
      }
    }

    @Override
    public String toString() {
      String text = host.isEmpty() ? "*" : host.indexOf(':') < 0 ? host : "[" + host + "]";
      return text + ":" + port;
    }
  }

  /**
   * A unix socket, which is made, and deleted again at the end.
   *
   * @param mode who may connect, as permission bits (0 to 0777): whoever may write
   */
  record Unix(Path path, int mode) implements ListenAddress {
    /** The owner, and root: NBD has no passwords, so that the file's mode is the only lock. */
    public static final int MODE_DEFAULT = 0600;

    public static final int MODE_MAX = 0777;

    /** A socket's address has room for 107; Java's own sockets take one less. */
    public static final int PATH_BYTES_MAX = 106;

    public Unix {
      if (mode < 0 || mode > MODE_MAX) {
        throw new IllegalArgumentException(
            "mode is %o, expected 0 to %o".formatted(mode, MODE_MAX));
      }
    }

    public Unix(Path path) {
      this(path, MODE_DEFAULT);
    }

    /** The bytes that the path takes in a socket's address, which has little room. */
    public int pathBytes() {
      return path.toString().getBytes(StandardCharsets.UTF_8).length;
    }

    /** Whether the path fits into a socket's address. */
    public boolean fits() {
      return pathBytes() <= PATH_BYTES_MAX;
    }

    @Override
    public String toString() {
      return path.toString();
    }
  }

  /**
   * A socket that listens already and that whoever started this process has handed over; it is
   * closed at the end, and if it is a unix socket, its file stays.
   *
   * @param fd its descriptor, not used by anything else in this process
   * @param name what messages call it
   * @param address what it is bound to: an {@link InetSocketAddress} or a {@link
   *     UnixDomainSocketAddress}
   */
  record Inherited(int fd, String name, SocketAddress address) implements ListenAddress {
    public Inherited {
      if (!(address instanceof InetSocketAddress || address instanceof UnixDomainSocketAddress)) {
        throw new IllegalArgumentException("neither TCP nor unix: " + address);
      }
    }

    /** Whether it is a unix socket, not a TCP one. */
    public boolean unix() {
      return address instanceof UnixDomainSocketAddress;
    }

    @Override
    public String toString() {
      return name;
    }
  }
}
