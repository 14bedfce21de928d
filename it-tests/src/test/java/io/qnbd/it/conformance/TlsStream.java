package io.qnbd.it.conformance;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLEngineResult.HandshakeStatus;
import javax.net.ssl.SSLEngineResult.Status;

/**
 * TLS over two streams. Other than the JDK's own socket it tells an end that was announced from one
 * that was not: a server must send close_notify.
 *
 * <p>One thread may write while another reads, after the handshake and as long as nobody asks for
 * new keys, which no server of these tests does on its own.
 */
final class TlsStream {
  private static final ByteBuffer NOTHING = ByteBuffer.allocate(0);

  private final InputStream in;
  private final OutputStream out;
  private final SSLEngine engine;
  private final byte[] record;

  /** What came and is not yet decrypted; ready to be read. */
  private final ByteBuffer received;

  /** What was decrypted and is not yet read; ready to be read. */
  private final ByteBuffer decrypted;

  private boolean closedByPeer;

  TlsStream(InputStream in, OutputStream out, SSLEngine engine) {
    this.in = in;
    this.out = out;
    this.engine = engine;
    this.record = new byte[engine.getSession().getPacketBufferSize()];
    this.received = ByteBuffer.allocate(2 * record.length).limit(0);
    this.decrypted = ByteBuffer.allocate(2 * record.length).limit(0);
  }

  void handshake() throws IOException {
    engine.beginHandshake();
    while (true) {
      HandshakeStatus status = engine.getHandshakeStatus();
      switch (status) {
        case NEED_WRAP -> wrap(NOTHING);
        case NEED_TASK -> runTasks();
        case NEED_UNWRAP, NEED_UNWRAP_AGAIN -> {
          if (!unwrap()) {
            throw new EOFException("the connection ended within the TLS handshake");
          }
        }
        case FINISHED, NOT_HANDSHAKING -> {
          return;
        }
      }
    }
  }

  void write(byte[] bytes) throws IOException {
    ByteBuffer source = ByteBuffer.wrap(bytes);
    while (source.hasRemaining()) {
      wrap(source);
    }
  }

  /**
   * Returns how many bytes were read, at least one; -1 when the server has ended the connection.
   */
  int read(byte[] target, int at, int count) throws IOException {
    while (!decrypted.hasRemaining()) {
      if (!unwrap()) {
        return -1;
      }
      runTasks(); // TLS 1.3 hands out session tickets whenever it likes
    }
    int taken = Math.min(count, decrypted.remaining());
    decrypted.get(target, at, taken);
    return taken;
  }

  /** Tells the server that this side will send no more. */
  void closeNotify() throws IOException {
    engine.closeOutbound();
    while (!engine.isOutboundDone()) {
      wrap(NOTHING);
    }
  }

  /** Whether the server announced the end. */
  boolean closedByPeer() {
    return closedByPeer;
  }

  private void wrap(ByteBuffer source) throws IOException {
    ByteBuffer message = ByteBuffer.allocate(record.length);
    SSLEngineResult result = engine.wrap(source, message);
    if (result.getStatus() == Status.BUFFER_OVERFLOW) {
      throw new AssertionError("a TLS record longer than its engine says");
    }
    out.write(message.array(), 0, message.position());
  }

  /** Handles one record; false when the connection has ended. */
  private boolean unwrap() throws IOException {
    if (closedByPeer) {
      return false;
    }
    decrypted.compact();
    SSLEngineResult result = engine.unwrap(received, decrypted);
    decrypted.flip();
    return switch (result.getStatus()) {
      case OK -> true;
      case CLOSED -> {
        closedByPeer = true;
        yield decrypted.hasRemaining();
      }
      case BUFFER_UNDERFLOW -> fill();
      case BUFFER_OVERFLOW -> throw new AssertionError("a TLS record longer than its engine says");
    };
  }

  private boolean fill() throws IOException {
    int read = in.read(record);
    if (read < 0) {
      return false;
    }
    received.compact().put(record, 0, read).flip();
    return true;
  }

  private void runTasks() {
    Runnable task = engine.getDelegatedTask();
    while (task != null) {
      task.run();
      task = engine.getDelegatedTask();
    }
  }
}
