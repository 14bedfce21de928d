package io.qnbd.server.net;

import java.nio.file.Path;

/** Where a server listens. */
public sealed interface ListenAddress {

  /**
   * A TCP port.
   *
   * @param host a name or an address of this machine; empty for all of them
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
      return (host.isEmpty() ? "*" : host) + ":" + port;
    }
  }

  /** A unix socket, which is made, and deleted again at the end. */
  record Unix(Path path) implements ListenAddress {
    @Override
    public String toString() {
      return path.toString();
    }
  }
}
