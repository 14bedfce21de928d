package io.qnbd.server.net;

import io.netty.buffer.ByteBuf;
import io.qnbd.image.DiskImage;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.codec.ReplyEncoder;
import io.qnbd.server.export.ErrorMapping;
import io.qnbd.server.export.Export;
import java.io.IOException;

/**
 * Does small requests on the event loop that has decoded them, where the image can do them without
 * waiting: a read whose tables and bytes are in memory, a write to clusters that are there. That
 * spares two hand-overs between threads, which cost more than the request itself.
 *
 * <p>Everything else is left to the workers, and so is what takes so long that it is better done
 * beside the loop than on it.
 *
 * <p>Owner: the connection's event loop. Nothing here can run when the connection is dead, so no
 * write of it can land later (see {@link io.qnbd.server.export.Fence}).
 */
final class LoopCalls {
  /** What became of a request. */
  enum Outcome {
    /** Its reply is in the batch. */
    ANSWERED,
    /** It is done but for the commit that it asks for, or it is a flush. */
    TO_COMMIT,
    /** Nothing was done. */
    LEFT
  }

  /**
   * A copy of so much takes some 10 us, as long as a hand-over; more than that keeps other
   * connections of the loop waiting for longer than it gains.
   */
  static final int BYTES_MAX = 64 << 10;

  private final Export export;
  private final ReplyEncoder encoder;
  private final ReplyBatch replies;
  private final ProblemLog problems;
  private final boolean on;

  /**
   * @param on whether anything but flushes, and what is no work, is done here at all
   */
  LoopCalls(
      Export export, ReplyEncoder encoder, ReplyBatch replies, ProblemLog problems, boolean on) {
    this.export = export;
    this.encoder = encoder;
    this.replies = replies;
    this.problems = problems;
    this.on = on;
  }

  /**
   * Does a request that the rules allow, or not.
   *
   * @param data stays the caller's
   */
  Outcome run(Request request, ByteBuf data) {
    if (request instanceof Request.Flush) {
      return Outcome.TO_COMMIT;
    }
    if (request.bytes() == 0) {
      put(new Reply.Done(request));
      return Outcome.ANSWERED;
    }
    if (!on || request.bytes() > BYTES_MAX) {
      return Outcome.LEFT;
    }
    return switch (request) {
      case Request.Read read -> read(read);
      case Request.Write write -> write(write, data);
      case Request.Trim _,
          Request.Cache _,
          Request.WriteZeroes _,
          Request.BlockStatus _,
          Request.Flush _,
          Request.Disconnect _,
          Request.Unknown _,
          Request.Malformed _ ->
          Outcome.LEFT;
    };
  }

  private Outcome read(Request.Read read) {
    int bytes = (int) read.bytes();
    int headerBytes = encoder.dataHeaderBytes();
    ByteBuf out = replies.room(headerBytes + bytes);
    int start = out.writerIndex();
    DiskImage.Attempt attempt;
    try {
      attempt =
          export.image().tryRead(read.offset(), out.internalNioBuffer(start + headerBytes, bytes));
    } catch (IOException | RuntimeException _) {
      return Outcome.LEFT; // whoever reads in earnest finds out where it fails
    }
    return switch (attempt) {
      case DONE -> {
        encoder.putDataHeader(out, read, read.offset(), bytes, true);
        out.writerIndex(start + headerBytes + bytes);
        yield Outcome.ANSWERED;
      }
      case ZEROES -> {
        putZeroes(out, read, bytes);
        yield Outcome.ANSWERED;
      }
      case WOULD_BLOCK -> Outcome.LEFT;
    };
  }

  private void putZeroes(ByteBuf out, Request.Read read, int bytes) {
    boolean hole =
        encoder.replies() != ReplyMode.SIMPLE
            && !read.dontFragment()
            && bytes >= ReadReply.HOLE_BYTES_MIN;
    if (hole) {
      encoder.putHole(out, read, read.offset(), bytes, true);
    } else {
      encoder.putDataHeader(out, read, read.offset(), bytes, true);
      out.writeZero(bytes);
    }
  }

  private Outcome write(Request.Write write, ByteBuf data) {
    long begin = System.nanoTime();
    if (!export.writePace().allows(begin)) {
      return Outcome.LEFT;
    }
    try {
      if (!export.image().tryWrite(write.offset(), data.nioBuffer())) {
        return Outcome.LEFT;
      }
    } catch (IOException | RuntimeException failed) {
      problems.requestFailed(write, failed);
      put(new Reply.Failed(write, ErrorMapping.errorOf(failed), ErrorMapping.textOf(failed)));
      return Outcome.ANSWERED;
    }
    export.writePace().wrote(begin, System.nanoTime());
    if (write.fua() || export.mode().commitsEveryWrite()) {
      return Outcome.TO_COMMIT;
    }
    put(new Reply.Done(write));
    return Outcome.ANSWERED;
  }

  private void put(Reply reply) {
    encoder.put(replies.room(encoder.roomFor(reply)), reply);
  }
}
