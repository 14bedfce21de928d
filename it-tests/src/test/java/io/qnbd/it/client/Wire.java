package io.qnbd.it.client;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;

/** The server's bytes in order. Owner: the thread that reads. */
final class Wire {
  private static final int BUFFER_BYTES = 256 << 10;

  private final SocketChannel channel;
  private final ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER_BYTES).limit(0);

  Wire(SocketChannel channel) {
    this.channel = channel;
  }

  /** Waits for a byte; false when the server has closed the connection instead. */
  boolean hasMore() throws IOException {
    if (buffer.hasRemaining()) {
      return true;
    }
    buffer.clear();
    int read = channel.read(buffer);
    buffer.flip();
    return read > 0;
  }

  int readShort() throws IOException {
    require(2);
    return buffer.getShort() & 0xffff;
  }

  int readInt() throws IOException {
    require(4);
    return buffer.getInt();
  }

  long readLong() throws IOException {
    require(8);
    return buffer.getLong();
  }

  /** Fills what remains of the target. */
  void readFully(ByteBuffer target) throws IOException {
    int buffered = Math.min(target.remaining(), buffer.remaining());
    target.put(target.position(), buffer, buffer.position(), buffered);
    buffer.position(buffer.position() + buffered);
    target.position(target.position() + buffered);
    while (target.hasRemaining()) {
      if (channel.read(target) < 0) {
        throw new EOFException("the server closed the connection inside a message");
      }
    }
  }

  byte[] readBytes(int count) throws IOException {
    byte[] bytes = new byte[count];
    readFully(ByteBuffer.wrap(bytes));
    return bytes;
  }

  private void require(int bytes) throws IOException {
    if (buffer.remaining() >= bytes) {
      return;
    }
    buffer.compact();
    while (buffer.position() < bytes) {
      if (channel.read(buffer) < 0) {
        throw new EOFException("the server closed the connection inside a message");
      }
    }
    buffer.flip();
  }
}
