package io.qnbd.server.net;

import io.netty.buffer.ByteBuf;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.protocol.NbdError;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.codec.ReplyEncoder;
import io.qnbd.server.export.ErrorMapping;
import io.qnbd.server.export.Export;
import java.io.IOException;
import java.util.concurrent.CompletionException;
import org.jspecify.annotations.Nullable;

/**
 * One request on its way through an image.
 *
 * <pre>
 * NEW --run, on a worker--> IN IMAGE ----> DONE: reply is set, handed to the connection
 *  |                          |            ^
 *  |                          v            |
 *  +--startCommit: FLUSH--> COMMITTING ----+
 *                           (no thread)
 * </pre>
 *
 * <p>{@code data}, what a WRITE carries, is released when the image has taken it or the call is
 * dropped. {@code replyData}, the reply to a READ with its header, belongs to whoever takes the
 * done call.
 *
 * <p>Owner: the thread that has it; passing it on (worker queue, commit, {@link CompletedCalls})
 * passes on ownership.
 */
final class Call implements Runnable {
  final Request request;

  /** Bytes in flight until the reply has reached the socket. */
  final long heldBytes;

  /** What of them was taken from the shared budget. */
  final long sharedBytes;

  @Nullable Call next;

  private final Connection connection;
  private final ByteBuf data;
  private @Nullable Reply reply;
  private @Nullable ByteBuf replyData;

  /**
   * @param data taken over
   */
  Call(Connection connection, Request request, ByteBuf data, long heldBytes, long sharedBytes) {
    this.connection = connection;
    this.request = request;
    this.data = data;
    this.heldBytes = heldBytes;
    this.sharedBytes = sharedBytes;
  }

  /** The reply, or null when the connection died before the image was called. */
  @Nullable Reply reply() {
    return reply;
  }

  /** Passes on the reply's bytes, header included; null when it has no data. */
  @Nullable ByteBuf takeReplyData() {
    ByteBuf taken = replyData;
    replyData = null;
    return taken;
  }

  /** Calls the image; blocks. */
  @Override
  public void run() {
    if (!connection.enterImage()) {
      data.release();
      connection.callDone(this);
      return;
    }
    boolean commits = false;
    try {
      callImage();
      commits = mustCommit();
    } catch (Throwable thrown) {
      fail(thrown);
    } finally {
      data.release();
    }
    if (commits) {
      commit();
    } else {
      leave();
    }
  }

  /** Commits and answers when that is done; never blocks. */
  void startCommit() {
    if (connection.enterImage()) {
      commit();
    } else {
      connection.callDone(this);
    }
  }

  private void commit() {
    try {
      var _ =
          connection
              .export()
              .image()
              .commit()
              .whenComplete((_, thrown) -> {
                if (thrown != null) {
                  fail(thrown);
                } else {
                  reply = new Reply.Done(request);
                }
                leave();
              });
    } catch (RuntimeException | Error thrown) {
      fail(thrown);
      leave();
    }
  }

  private void leave() {
    connection.leaveImage();
    connection.callDone(this);
  }

  private void callImage() throws IOException {
    DiskImage image = connection.export().image();
    switch (request) {
      case Request.Read read -> {
        read(image, read);
        return;
      }
      case Request.BlockStatus status -> {
        reply = connection.statusReader().read(status);
        return;
      }
      case Request.WriteZeroes zeroes -> {
        writeZeroes(image, zeroes);
        return;
      }
      case Request.Write write -> image.write(write.offset(), data.nioBuffer());
      case Request.Trim trim -> image.trim(trim.offset(), trim.bytes());
      case Request.Cache cache -> image.prefetch(cache.offset(), cache.bytes());
      case Request.Flush _, Request.Disconnect _, Request.Unknown _, Request.Malformed _ ->
          throw new AssertionError("not a call for a worker: " + request);
    }
    reply = new Reply.Done(request);
  }

  private void writeZeroes(DiskImage image, Request.WriteZeroes zeroes) throws IOException {
    ZeroMode mode = zeroes.noHole() ? ZeroMode.KEEP_ALLOCATED : ZeroMode.MAY_UNMAP;
    if (!zeroes.fastZero()) {
      image.writeZeroes(zeroes.offset(), zeroes.bytes(), mode);
    } else if (!image.tryFastZeroes(zeroes.offset(), zeroes.bytes(), mode)) {
      reply =
          new Reply.Failed(
              zeroes, NbdError.ENOTSUP, "zeroing this range takes as long as writing it");
      return;
    }
    reply = new Reply.Done(zeroes);
  }

  private void read(DiskImage image, Request.Read read) throws IOException {
    ReplyEncoder encoder = connection.encoder();
    if (encoder.replies() == ReplyMode.SIMPLE) {
      readSimple(image, read);
    } else {
      ReadReply chunks = new ReadReply(encoder, connection.allocator(), read);
      replyData = chunks.read(image);
      reply = new Reply.Data(read);
      IOException failure = chunks.failure();
      if (failure != null) {
        connection.problems().requestFailed(read, failure);
      }
    }
  }

  /** Reads behind the reply's header, so that both cross in one buffer. */
  private void readSimple(DiskImage image, Request.Read read) throws IOException {
    ReplyEncoder encoder = connection.encoder();
    int bytes = (int) read.bytes();
    int headerBytes = encoder.dataHeaderBytes();
    ByteBuf out = connection.allocator().directBuffer(headerBytes + bytes);
    try {
      encoder.putDataHeader(out, read, read.offset(), bytes, true);
      image.read(read.offset(), out.nioBuffer(headerBytes, bytes));
      out.writerIndex(headerBytes + bytes);
    } catch (Throwable thrown) {
      out.release();
      throw thrown;
    }
    replyData = out;
    reply = new Reply.Data(read);
  }

  private boolean mustCommit() {
    Export export = connection.export();
    return switch (request) {
      case Request.Write _, Request.WriteZeroes _, Request.Trim _ ->
          reply instanceof Reply.Done && (request.fua() || export.mode().commitsEveryWrite());
      case Request.Read _,
          Request.BlockStatus _,
          Request.Cache _,
          Request.Flush _,
          Request.Disconnect _,
          Request.Unknown _,
          Request.Malformed _ ->
          false;
    };
  }

  private void fail(Throwable thrown) {
    Throwable cause =
        thrown instanceof CompletionException wrapper && wrapper.getCause() != null
            ? wrapper.getCause()
            : thrown;
    connection.problems().requestFailed(request, cause);
    reply = new Reply.Failed(request, ErrorMapping.errorOf(cause), ErrorMapping.textOf(cause));
  }
}
