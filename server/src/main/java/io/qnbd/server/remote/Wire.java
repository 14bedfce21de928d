package io.qnbd.server.remote;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;

/**
 * Numbers and bytes over a blocking socket, with a small buffer for reading.
 *
 * <p>Owner: reading belongs to one thread, writing to whoever holds the connection's write lock.
 */
final class Wire {
  private static final int BUFFER_BYTES = 16 << 10;

  private final SocketChannel channel;
  private final ByteBuffer in = ByteBuffer.allocateDirect(BUFFER_BYTES).flip();

  Wire(SocketChannel channel) {
    this.channel = channel;
  }

  private void need(int bytes) throws IOException {
    if (in.remaining() >= bytes) {
      return;
    }
    in.compact();
    while (in.position() < bytes) {
      if (channel.read(in) < 0) {
        throw new EOFException("the server closed the connection");
      }
    }
    in.flip();
  }

  int readShort() throws IOException {
    need(Short.BYTES);
    return in.getShort() & 0xffff;
  }

  int readInt() throws IOException {
    need(Integer.BYTES);
    return in.getInt();
  }

  long readLong() throws IOException {
    need(Long.BYTES);
    return in.getLong();
  }

  /** Fills the buffer: with what was read ahead, then from the socket without a copy. */
  void read(ByteBuffer target) throws IOException {
    int ahead = Math.min(in.remaining(), target.remaining());
    target.put(in.slice(in.position(), ahead));
    in.position(in.position() + ahead);
    while (target.hasRemaining()) {
      if (channel.read(target) < 0) {
        throw new EOFException("the server closed the connection");
      }
    }
  }

  byte[] readBytes(int bytes) throws IOException {
    byte[] array = new byte[bytes];
    read(ByteBuffer.wrap(array));
    return array;
  }

  void skip(long bytes) throws IOException {
    for (long left = bytes; left > 0; ) {
      int piece = (int) Math.min(left, BUFFER_BYTES);
      readBytes(piece);
      left -= piece;
    }
  }

  void write(ByteBuffer... parts) throws IOException {
    while (anyRemains(parts)) {
      channel.write(parts);
    }
  }

  private static boolean anyRemains(ByteBuffer[] parts) {
    for (ByteBuffer part : parts) {
      if (part.hasRemaining()) {
        return true;
      }
    }
    return false;
  }
}
