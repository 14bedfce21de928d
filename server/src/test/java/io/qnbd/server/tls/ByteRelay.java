package io.qnbd.server.tls;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** A connection on which every byte, in both directions, is sent alone. */
final class ByteRelay implements AutoCloseable {
  private final Socket server;
  private final Socket client;
  private final Socket inside;

  ByteRelay(Socket server) throws IOException {
    this.server = server;
    try (ServerSocket listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      client = new Socket(listener.getInetAddress(), listener.getLocalPort());
      inside = listener.accept();
    }
    inside.setTcpNoDelay(true);
    pump(inside, server);
    pump(server, inside);
  }

  /** The client's end. */
  Socket client() {
    return client;
  }

  private static void pump(Socket from, Socket to) {
    Thread.ofPlatform()
        .daemon()
        .start(() -> {
          try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            for (int b = in.read(); b >= 0; b = in.read()) {
              out.write(b);
            }
            to.shutdownOutput();
          } catch (IOException _) {
            // One of the sockets was closed: the test is over, or fails at its own end.
          }
        });
  }

  @Override
  public void close() throws IOException {
    client.close();
    inside.close();
    server.close();
  }
}
