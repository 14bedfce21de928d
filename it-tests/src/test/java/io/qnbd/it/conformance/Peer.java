package io.qnbd.it.conformance;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import javax.net.ssl.SSLEngine;
import org.jspecify.annotations.Nullable;

/**
 * A socket whose other end is the server. Each {@link #send} is one segment where the system lets
 * it be one; a server that is silent for a minute where it owes bytes fails the case.
 *
 * <p>One thread may send while another reads.
 */
final class Peer implements AutoCloseable {
  /** Nothing here takes long; a machine may be busy for that long. */
  private static final int PATIENCE_MILLIS = 60_000;

  private final Socket socket;
  private final InputStream plainIn;
  private final OutputStream plainOut;
  private @Nullable TlsStream tls;

  private Peer(Socket socket) throws IOException {
    this.socket = socket;
    this.plainIn = socket.getInputStream();
    this.plainOut = socket.getOutputStream();
  }

  /** Connects to a server of this machine. */
  static Peer connect(int port) throws IOException {
    Socket socket = new Socket();
    try {
      socket.setTcpNoDelay(true);
      socket.setSoTimeout(PATIENCE_MILLIS);
      socket.connect(
          new InetSocketAddress(InetAddress.getLoopbackAddress(), port), PATIENCE_MILLIS);
      return new Peer(socket);
    } catch (Throwable e) {
      socket.close();
      throw e;
    }
  }

  /** Goes on in TLS, as the client. */
  void startTls(SSLEngine engine) throws IOException {
    TlsStream stream = new TlsStream(plainIn, plainOut, engine);
    stream.handshake();
    tls = stream;
  }

  boolean encrypted() {
    return tls != null;
  }

  void send(byte... bytes) throws IOException {
    TlsStream stream = tls;
    if (stream == null) {
      plainOut.write(bytes);
    } else {
      stream.write(bytes);
    }
  }

  /** Sends what the server may refuse to take: one that has closed the connection is no error. */
  void sendToWhomMayBeGone(byte... bytes) {
    try {
      send(bytes);
    } catch (IOException e) {
      return; // closed, by the server or by the case
    }
  }

  /** Waits for so many bytes. */
  byte[] read(int count) throws IOException {
    byte[] bytes = new byte[count];
    int got = 0;
    while (got < count) {
      int more = readSome(bytes, got);
      if (more < 0) {
        throw new EOFException(
            "the server closed the connection %d bytes short of %d".formatted(count - got, count));
      }
      got += more;
    }
    return bytes;
  }

  /** Waits for so many bytes, in the protocol's order. */
  ByteBuffer take(int count) throws IOException {
    return ByteBuffer.wrap(read(count));
  }

  /** Fills the array from {@code at} with what is there; -1 when the server has closed. */
  int readSome(byte[] bytes, int at) throws IOException {
    try {
      TlsStream stream = tls;
      return stream == null
          ? plainIn.read(bytes, at, bytes.length - at)
          : stream.read(bytes, at, bytes.length - at);
    } catch (SocketTimeoutException e) {
      throw new AssertionError(
          "the server said nothing for " + PATIENCE_MILLIS / 1000 + " s and stayed connected", e);
    }
  }

  /** Waits until the server has closed the connection; it must say nothing more before. */
  void mustEnd() throws IOException {
    int more = countToEnd();
    Check.that(more == 0, "%d bytes came where the connection should end", more);
  }

  /** Waits until the server has closed the connection, whatever it still says. */
  int countToEnd() throws IOException {
    byte[] scratch = new byte[64 << 10];
    int count = 0;
    while (true) {
      int more;
      try {
        more = readSome(scratch, 0);
      } catch (SocketException e) {
        return count; // a reset: bytes of ours were unread when it closed
      }
      if (more < 0) {
        return count;
      }
      count += more;
    }
  }

  /** Waits for the end of the connection, which must be announced within TLS (close_notify). */
  void mustEndWithCloseNotify() throws IOException {
    TlsStream stream = tls;
    if (stream == null) {
      throw new AssertionError("the connection is in clear");
    }
    mustEnd();
    Check.that(stream.closedByPeer(), "the connection ended without close_notify");
  }

  /** Says that nothing more will be sent, and goes on reading. */
  void halfClose() throws IOException {
    TlsStream stream = tls;
    if (stream != null) {
      stream.closeNotify();
    }
    socket.shutdownOutput();
  }

  /** Drops the connection with a reset, as the system of a killed client does. */
  void reset() throws IOException {
    socket.setSoLinger(true, 0);
    socket.close();
  }

  @Override
  public void close() throws IOException {
    socket.close();
  }
}
