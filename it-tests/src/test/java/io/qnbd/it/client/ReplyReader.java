package io.qnbd.it.client;

import io.qnbd.it.client.NbdClient.Pending;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.Map;

/**
 * Reads simple and structured replies and completes the requests that they belong to. It holds the
 * server to the protocol: a cookie that nobody waits for, bytes outside the request, a read that
 * ends with bytes missing, or a simple reply to a structured read end the connection.
 */
final class ReplyReader {
  private static final int SIMPLE_MAGIC = 0x67446698;
  private static final int STRUCTURED_MAGIC = 0x668e33ef;
  private static final int CHUNK_DONE = 1;
  private static final int CHUNK_NONE = 0;
  private static final int CHUNK_OFFSET_DATA = 1;
  private static final int CHUNK_OFFSET_HOLE = 2;
  private static final int CHUNK_ERROR = 0x8001;
  private static final int CHUNK_ERROR_OFFSET = 0x8002;

  private final Wire wire;
  private final boolean structured;
  private final Map<Long, Pending> pending;

  ReplyReader(SocketChannel channel, boolean structured, Map<Long, Pending> pending) {
    this.wire = new Wire(channel);
    this.structured = structured;
    this.pending = pending;
  }

  /** Reads one reply or chunk; false when the server closed the connection between two of them. */
  boolean readOne() throws IOException {
    if (!wire.hasMore()) {
      return false;
    }
    int magic = wire.readInt();
    if (magic == SIMPLE_MAGIC) {
      readSimple();
    } else if (magic == STRUCTURED_MAGIC && structured) {
      readChunk();
    } else {
      throw new IOException("reply magic is %#x".formatted(magic));
    }
    return true;
  }

  private void readSimple() throws IOException {
    int error = wire.readInt();
    long cookie = wire.readLong();
    Pending request = waiting(cookie);
    if (request.bytes > 0 && structured) {
      throw new IOException("a simple reply to a read after structured replies were agreed on");
    }
    request.error = error;
    if (error == 0) {
      wire.readFully(request.target);
      request.arrived = request.bytes;
    }
    finish(cookie, request);
  }

  private void readChunk() throws IOException {
    int flags = wire.readShort();
    int type = wire.readShort();
    long cookie = wire.readLong();
    int length = wire.readInt();
    Pending request = waiting(cookie);
    switch (type) {
      case CHUNK_NONE -> expect(length == 0 && (flags & CHUNK_DONE) != 0, "a NONE chunk", length);
      case CHUNK_OFFSET_DATA -> readData(request, length);
      case CHUNK_OFFSET_HOLE -> readHole(request, length);
      case CHUNK_ERROR, CHUNK_ERROR_OFFSET -> readError(request, type, length);
      default -> throw new IOException("chunk type is %#x".formatted(type));
    }
    if ((flags & CHUNK_DONE) != 0) {
      finish(cookie, request);
    }
  }

  private void readData(Pending request, int length) throws IOException {
    expect(length > 8, "an OFFSET_DATA chunk", length);
    ByteBuffer target = part(request, wire.readLong(), length - 8);
    wire.readFully(target);
  }

  private void readHole(Pending request, int length) throws IOException {
    expect(length == 12, "an OFFSET_HOLE chunk", length);
    long offset = wire.readLong();
    ByteBuffer target = part(request, offset, wire.readInt());
    while (target.hasRemaining()) {
      target.put((byte) 0);
    }
  }

  private void readError(Pending request, int type, int length) throws IOException {
    expect(length >= 6, "an error chunk", length);
    int error = wire.readInt();
    int textBytes = wire.readShort();
    int rest = type == CHUNK_ERROR_OFFSET ? 8 : 0;
    expect(length == 6 + textBytes + rest && error != 0, "an error chunk", length);
    String text = NbdClient.utf8(wire.readBytes(textBytes));
    if (rest > 0) {
      var _ = wire.readLong();
    }
    if (request.error == 0) {
      request.error = error;
      request.message = text;
    }
  }

  private static ByteBuffer part(Pending request, long offset, int bytes) throws IOException {
    long first = offset - request.offset;
    if (bytes <= 0 || first < 0 || first + bytes > request.bytes) {
      throw new IOException("%d bytes at %#x are outside the read".formatted(bytes, offset));
    }
    request.arrived += bytes;
    return request.target.slice(request.start + (int) first, bytes);
  }

  private Pending waiting(long cookie) throws IOException {
    Pending request = pending.get(cookie);
    if (request == null) {
      throw new IOException("a reply with cookie %#x, which nobody waits for".formatted(cookie));
    }
    return request;
  }

  private void finish(long cookie, Pending request) throws IOException {
    pending.remove(cookie);
    if (request.error != 0) {
      String text = "error %d %s".formatted(request.error, request.message).strip();
      request.future.completeExceptionally(new NbdException(request.error, text));
    } else if (request.arrived != request.bytes) {
      String text = "%d of %d bytes arrived".formatted(request.arrived, request.bytes);
      request.future.completeExceptionally(new IOException(text));
    } else {
      request.future.complete(null);
    }
  }

  private static void expect(boolean holds, String what, int length) throws IOException {
    if (!holds) {
      throw new IOException(what + " of length " + length);
    }
  }
}
