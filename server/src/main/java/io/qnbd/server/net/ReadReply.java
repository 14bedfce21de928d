package io.qnbd.server.net;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.CompositeByteBuf;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroRangeSink;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.codec.ReplyEncoder;
import io.qnbd.server.export.ErrorMapping;
import java.io.IOException;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * The chunks that answer one READ in structured or extended replies (NBD protocol, "Structured
 * reply types"): data, holes where the image knows that there are zeroes, and an error where a part
 * cannot be read.
 *
 * <p>The disk's bytes are read once, into one buffer behind room for a header. Byte {@code i} of
 * the request is at index {@code headerBytes + i} from then on and never moves: the header of data
 * that follows a hole, and the hole's own chunk, are written into the hole's room, which nothing
 * else needs.
 *
 * <pre>
 * | header | data       |   room of a hole   . hole chunk . header | data      |
 *  ^------ piece 1 -----^                    ^------ piece 2 ----------------^
 * </pre>
 *
 * <p>Owner: the thread that makes the reply.
 */
final class ReadReply implements ZeroRangeSink {
  /** Below this a hole saves less than its chunk and one more piece of a vector cost. */
  static final int HOLE_BYTES_MIN = 4096;

  /** After a failure the request is read again in steps of this size, to find the place. */
  private static final int STEP_BYTES = 4096;

  private final ReplyEncoder encoder;
  private final ByteBufAllocator allocator;
  private final Request.Read request;
  private final int headerBytes;
  private final int dataBytes;

  /** Start and end of each hole, in ascending order. */
  private int[] holes = new int[8];

  private int holeCount;
  private @Nullable IOException failure;

  ReadReply(ReplyEncoder encoder, ByteBufAllocator allocator, Request.Read request) {
    this.encoder = encoder;
    this.allocator = allocator;
    this.request = request;
    this.headerBytes = encoder.dataHeaderBytes();
    this.dataBytes = (int) request.bytes();
  }

  /** Reads and answers; the caller releases what it gets. */
  ByteBuf read(DiskImage image) {
    ByteBuf out = allocator.directBuffer(headerBytes + dataBytes);
    try {
      try {
        image.read(request.offset(), out.nioBuffer(headerBytes, dataBytes), this);
      } catch (IOException _) {
        return readUntilFailure(image, out);
      }
      return assemble(out);
    } catch (Throwable thrown) {
      out.release();
      throw thrown;
    }
  }

  /** Why a part could not be read, or null when all of it could. */
  @Nullable IOException failure() {
    return failure;
  }

  @Override
  public void zeroes(int at, int bytes) {
    if (holeCount > 0 && holes[holeCount - 1] == at) {
      holes[holeCount - 1] = at + bytes;
      return;
    }
    if (holeCount == holes.length) {
      holes = Arrays.copyOf(holes, 2 * holeCount);
    }
    holes[holeCount] = at;
    holes[holeCount + 1] = at + bytes;
    holeCount += 2;
  }

  private ByteBuf assemble(ByteBuf out) {
    fillSmallHoles(out);
    if (holeCount == 0) {
      encoder.putDataHeader(out, request, request.offset(), dataBytes, true);
      return out.writerIndex(headerBytes + dataBytes);
    }
    if (holes[0] == 0 && holes[1] == dataBytes) {
      ByteBuf hole = allocator.directBuffer(encoder.holeBytes());
      out.release();
      encoder.putHole(hole, request, request.offset(), dataBytes, true);
      return hole;
    }
    return pieces(out);
  }

  /** Whoever wants no holes, as DF says, gets zeroes; so does whoever would get tiny holes. */
  private void fillSmallHoles(ByteBuf out) {
    int kept = 0;
    for (int i = 0; i < holeCount; i += 2) {
      int bytes = holes[i + 1] - holes[i];
      if (bytes < HOLE_BYTES_MIN || request.dontFragment()) {
        out.setZero(headerBytes + holes[i], bytes);
      } else {
        holes[kept] = holes[i];
        holes[kept + 1] = holes[i + 1];
        kept += 2;
      }
    }
    holeCount = kept;
  }

  private ByteBuf pieces(ByteBuf out) {
    CompositeByteBuf whole = allocator.compositeDirectBuffer(holeCount / 2 + 1);
    int pieceStart = 0;
    int at = 0;
    for (int i = 0; i < holeCount; i += 2) {
      int start = holes[i];
      int end = holes[i + 1];
      if (start > at) {
        putData(out, at, start, false);
      }
      boolean last = end == dataBytes;
      int chunkAt = last ? headerBytes + start : end - encoder.holeBytes();
      if (!last && start > 0) {
        addPiece(whole, out, pieceStart, headerBytes + start);
      }
      if (!last) {
        pieceStart = chunkAt;
      }
      encoder.putHole(
          out.writerIndex(chunkAt), request, request.offset() + start, end - start, last);
      at = end;
    }
    if (at < dataBytes) {
      putData(out, at, dataBytes, true);
      addPiece(whole, out, pieceStart, headerBytes + dataBytes);
    } else {
      addPiece(whole, out, pieceStart, out.writerIndex());
    }
    out.release();
    return whole;
  }

  private void putData(ByteBuf out, int start, int end, boolean done) {
    encoder.putDataHeader(
        out.writerIndex(start), request, request.offset() + start, end - start, done);
  }

  private static void addPiece(CompositeByteBuf whole, ByteBuf out, int start, int end) {
    whole.addComponent(true, out.retainedSlice(start, end - start));
  }

  /** What can be read before the place that fails, and an error that names the place. */
  private ByteBuf readUntilFailure(DiskImage image, ByteBuf out) {
    int good = 0;
    IOException cause;
    try {
      while (good < dataBytes) {
        int bytes = Math.min(STEP_BYTES, dataBytes - good);
        image.read(request.offset() + good, out.nioBuffer(headerBytes + good, bytes));
        good += bytes;
      }
      holeCount = 0;
      return assemble(out);
    } catch (IOException again) {
      cause = again;
    }
    failure = cause;
    Reply.Failed failed =
        new Reply.Failed(
            request,
            ErrorMapping.errorOf(cause),
            ErrorMapping.textOf(cause),
            request.offset() + good);
    ByteBuf error = allocator.directBuffer(ReplyEncoder.REPLY_BYTES_TYPICAL);
    encoder.put(error, failed);
    if (good == 0) {
      out.release();
      return error;
    }
    encoder.putDataHeader(out, request, request.offset(), good, false);
    out.writerIndex(headerBytes + good);
    return allocator.compositeDirectBuffer(2).addComponents(true, out, error);
  }
}
