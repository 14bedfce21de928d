package io.qnbd.server.tls;

import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelPromise;
import io.netty.channel.socket.ChannelInputShutdownEvent;
import io.netty.handler.codec.UnsupportedMessageTypeException;
import io.netty.handler.ssl.SslCloseCompletionEvent;
import io.netty.handler.ssl.SslHandshakeCompletionEvent;
import io.netty.util.ReferenceCountUtil;
import io.netty.util.concurrent.ScheduledFuture;
import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLHandshakeException;
import org.bouncycastle.tls.TlsServerProtocol;
import org.jspecify.annotations.Nullable;

/**
 * Bouncy Castle's TLS server as a Netty handler, with the events of Netty's own.
 *
 * <pre>
 * HANDSHAKING --handshake done--> OPEN --close_notify--> PEER_CLOSED
 *      |                           |                        |
 *      +--failure, close, inactive-+------------------------+--> CLOSED
 * </pre>
 *
 * <p>In HANDSHAKING writes are kept, in OPEN they are encrypted when flushed, afterwards they fail.
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>Plaintext that waits in {@code writes} belongs to this handler until it is encrypted; no
 *       more than a slice of it is encrypted ahead of a socket that takes nothing.
 *   <li>A write's promise goes with its last ciphertext, so it is done when the socket has all.
 *   <li>The protocol holds no output between two calls of the handler, and no input but that of
 *       {@code record}, which is less than one record.
 * </ul>
 *
 * <p>Owner: the channel's event loop.
 */
final class PskHandler extends ChannelDuplexHandler {
  /** Type, version, length (RFC 8446, section 5.1). */
  private static final int RECORD_HEADER_BYTES = 5;

  private static final int RECORD_PLAIN_BYTES = 1 << 14;

  /** What a record grows by at most with the ciphers that we have: header, nonce, type, tag. */
  private static final int RECORD_OVERHEAD_BYTES = 64;

  /** Encrypted and given to the socket in one go: large enough for one system call to be cheap. */
  private static final int SLICE_BYTES = 16 * RECORD_PLAIN_BYTES;

  /** 4 MiB, some milliseconds of work; then the loop's other connections have their turn. */
  private static final int SLICES_IN_A_ROW = 16;

  /** How long a peer that reads nothing may keep us from closing. */
  private static final long CLOSE_MILLIS = 1000;

  private enum State {
    HANDSHAKING,
    OPEN,
    PEER_CLOSED,
    CLOSED
  }

  /** A write that is not encrypted yet, or only in part; owns the data. */
  private record PendingWrite(ByteBuf data, ChannelPromise promise) {
    void fail(Throwable cause) {
      data.release();
      if (!promise.isVoid()) { // as Netty does with what it cannot send any more
        promise.tryFailure(cause);
      }
    }
  }

  private final PskServer server;
  private final TlsServerProtocol protocol = new TlsServerProtocol();
  private final Deque<PendingWrite> writes = new ArrayDeque<>();
  private State state = State.HANDSHAKING;

  /** How many of {@code writes}, from the first, were flushed. */
  private int flushed;

  private boolean encrypting;

  /** The beginning of a record; an array on the heap. Null between records. */
  private @Nullable ByteBuf record;

  private int recordBytes;

  /** Whether those behind us asked for a message and have had none. */
  private boolean readWanted;

  PskHandler(PskServer server) {
    this.server = server;
  }

  @Nullable TlsIdentity identity() {
    return server.identity();
  }

  @Override
  public void handlerAdded(ChannelHandlerContext ctx) throws IOException {
    protocol.accept(server);
    if (!ctx.channel().config().isAutoRead()) {
      ctx.read();
    }
  }

  /** Nothing is passed on any more, and what waits fails. */
  @Override
  public void handlerRemoved(ChannelHandlerContext ctx) {
    state = State.CLOSED;
    dropRecord();
    failWrites(new ClosedChannelException());
  }

  // What comes from the peer.

  /** Takes over the message. */
  @Override
  public void channelRead(ChannelHandlerContext ctx, Object message) {
    if (!(message instanceof ByteBuf in)) {
      ReferenceCountUtil.release(message);
      throw new AssertionError("expected bytes, got " + message);
    }
    ByteBuf plain = null;
    try {
      while (in.isReadable() && reading()) {
        if (!collect(ctx, in)) {
          continue;
        }
        boolean handshaking = state == State.HANDSHAKING;
        offerRecord();
        var _ = sendOutput(ctx);
        plain = takePlain(ctx, plain, in.readableBytes());
        if (handshaking && server.identity() != null) {
          opened(ctx);
        } else if (state == State.OPEN && protocol.isClosed()) {
          state = State.PEER_CLOSED;
        }
      }
    } catch (IOException | RuntimeException e) {
      plain = pass(ctx, plain);
      var _ = sendOutput(ctx);
      fail(ctx, e);
    } finally {
      in.release();
    }
    var _ = pass(ctx, plain);
    if (state == State.PEER_CLOSED) {
      peerClosed(ctx);
    }
  }

  private boolean reading() {
    return state == State.HANDSHAKING || state == State.OPEN;
  }

  /** Moves bytes into {@code record}; whether that is complete now. */
  private boolean collect(ChannelHandlerContext ctx, ByteBuf in) throws IOException {
    ByteBuf target = record;
    if (target == null) {
      target = ctx.alloc().heapBuffer(RECORD_HEADER_BYTES + 1024);
      record = target;
      recordBytes = RECORD_HEADER_BYTES;
    }
    if (target.writerIndex() < RECORD_HEADER_BYTES) {
      move(in, target);
      if (target.writerIndex() < RECORD_HEADER_BYTES) {
        return false;
      }
      byte[] header = new byte[RECORD_HEADER_BYTES];
      target.getBytes(0, header);
      recordBytes = protocol.previewInputRecord(header).getRecordSize(); // refuses too large ones
      target.ensureWritable(recordBytes - RECORD_HEADER_BYTES);
    }
    move(in, target);
    return target.writerIndex() == recordBytes;
  }

  private void move(ByteBuf in, ByteBuf target) {
    target.writeBytes(in, Math.min(in.readableBytes(), recordBytes - target.writerIndex()));
  }

  private void offerRecord() throws IOException {
    ByteBuf complete = record;
    if (complete == null) {
      throw new AssertionError("no record was collected");
    }
    try {
      protocol.offerInput(complete.array(), complete.arrayOffset(), recordBytes);
    } finally {
      dropRecord();
    }
  }

  private void dropRecord() {
    if (record != null) {
      record.release();
      record = null;
    }
  }

  /**
   * Appends what was decrypted; what follows of this message can hardly be more than {@code more}.
   */
  private @Nullable ByteBuf takePlain(
      ChannelHandlerContext ctx, @Nullable ByteBuf plain, int more) {
    int bytes = protocol.getAvailableInputBytes();
    if (bytes == 0) {
      return plain;
    }
    ByteBuf target = plain == null ? ctx.alloc().buffer(bytes + more) : plain;
    target.ensureWritable(bytes);
    int at = target.writerIndex();
    int got = protocol.readInput(target.internalNioBuffer(at, bytes), bytes);
    target.writerIndex(at + got);
    return target;
  }

  /** Gives the plaintext, if there is any, to the next handler. */
  private @Nullable ByteBuf pass(ChannelHandlerContext ctx, @Nullable ByteBuf plain) {
    if (plain != null) {
      readWanted = false;
      ctx.fireChannelRead(plain);
    }
    return null;
  }

  private void opened(ChannelHandlerContext ctx) {
    state = State.OPEN;
    ctx.fireUserEventTriggered(SslHandshakeCompletionEvent.SUCCESS);
    encrypt(ctx);
  }

  /** The protocol has answered close_notify, after which nothing can be sent. */
  private void peerClosed(ChannelHandlerContext ctx) {
    failWrites(new ClosedChannelException());
    ctx.fireUserEventTriggered(SslCloseCompletionEvent.SUCCESS);
  }

  @Override
  public void channelReadComplete(ChannelHandlerContext ctx) {
    ctx.fireChannelReadComplete();
    boolean wanting = state == State.HANDSHAKING || (state == State.OPEN && readWanted);
    if (wanting && !ctx.channel().config().isAutoRead()) {
      ctx.read(); // what came was less than a record, or the handshake's
    }
  }

  @Override
  public void read(ChannelHandlerContext ctx) {
    readWanted = true;
    ctx.read();
  }

  @Override
  public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
    if (event instanceof ChannelInputShutdownEvent && state == State.HANDSHAKING) {
      fail(ctx, new ClosedChannelException());
    }
    ctx.fireUserEventTriggered(event);
  }

  @Override
  public void channelInactive(ChannelHandlerContext ctx) {
    State before = state;
    state = State.CLOSED;
    dropRecord();
    failWrites(new ClosedChannelException());
    switch (before) {
      case HANDSHAKING -> fireHandshakeFailure(ctx, new ClosedChannelException());
      case OPEN ->
          ctx.fireUserEventTriggered(new SslCloseCompletionEvent(new ClosedChannelException()));
      case PEER_CLOSED, CLOSED -> {}
    }
    ctx.fireChannelInactive();
  }

  /** Ends the connection because of what the peer sent; the alert has been written. */
  private void fail(ChannelHandlerContext ctx, Exception cause) {
    State before = state;
    if (before == State.CLOSED) {
      return;
    }
    state = State.CLOSED;
    dropRecord();
    failWrites(cause);
    if (before == State.HANDSHAKING) {
      fireHandshakeFailure(ctx, cause);
    } else {
      ctx.fireExceptionCaught(new SSLException("TLS failed: " + cause.getMessage(), cause));
    }
    closeAfterOutput(ctx, ctx.newPromise());
  }

  private static void fireHandshakeFailure(ChannelHandlerContext ctx, Exception cause) {
    String why =
        cause instanceof ClosedChannelException
            ? "the client left during the TLS handshake"
            : "TLS handshake failed: " + cause.getMessage();
    SSLHandshakeException failure = new SSLHandshakeException(why);
    failure.initCause(cause);
    ctx.fireUserEventTriggered(new SslHandshakeCompletionEvent(failure));
  }

  // What goes to the peer.

  /** Takes over the message. */
  @Override
  public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
    if (!(message instanceof ByteBuf data)) {
      ReferenceCountUtil.release(message);
      promise.tryFailure(new UnsupportedMessageTypeException(message, ByteBuf.class));
      return;
    }
    PendingWrite write = new PendingWrite(data, promise);
    if (reading()) {
      writes.add(write);
    } else {
      write.fail(new ClosedChannelException());
    }
  }

  @Override
  public void flush(ChannelHandlerContext ctx) {
    flushed = writes.size();
    encrypt(ctx);
    ctx.flush();
  }

  @Override
  public void channelWritabilityChanged(ChannelHandlerContext ctx) {
    encrypt(ctx);
    ctx.fireChannelWritabilityChanged();
  }

  /** Encrypts what was flushed as far as the socket takes it. */
  private void encrypt(ChannelHandlerContext ctx) {
    if (encrypting) {
      return; // a promise of the loop below was done, and its listener wrote
    }
    encrypting = true;
    try {
      int slices = 0;
      while (state == State.OPEN && flushed > 0 && ctx.channel().isWritable()) {
        if (slices++ == SLICES_IN_A_ROW) {
          ctx.executor().execute(() -> encrypt(ctx));
          break;
        }
        encryptSlice(ctx);
        ctx.flush();
      }
    } finally {
      encrypting = false;
    }
  }

  /** Encrypts the first write, or the next part of it. */
  private void encryptSlice(ChannelHandlerContext ctx) {
    PendingWrite write = writes.element();
    ByteBuf out;
    try {
      out = encrypted(ctx, write.data(), Math.min(write.data().readableBytes(), SLICE_BYTES));
    } catch (IOException | RuntimeException e) {
      fail(ctx, e);
      return;
    }
    if (write.data().isReadable()) {
      var _ = ctx.write(out);
      return;
    }
    writes.remove();
    flushed--;
    write.data().release();
    var _ = ctx.write(out, write.promise());
  }

  /** The records of the next {@code bytes} of {@code data}; the caller owns them. */
  private ByteBuf encrypted(ChannelHandlerContext ctx, ByteBuf data, int bytes) throws IOException {
    int records = bytes / RECORD_PLAIN_BYTES + 1;
    ByteBuf out = ctx.alloc().directBuffer(bytes + records * RECORD_OVERHEAD_BYTES);
    ByteBuf scratch =
        data.hasArray() ? null : ctx.alloc().heapBuffer(Math.min(bytes, RECORD_PLAIN_BYTES));
    try {
      for (int left = bytes; left > 0; ) {
        int part = Math.min(left, RECORD_PLAIN_BYTES);
        if (scratch == null) {
          protocol.writeApplicationData(
              data.array(), data.arrayOffset() + data.readerIndex(), part);
          data.skipBytes(part);
        } else {
          scratch.clear().writeBytes(data, part);
          protocol.writeApplicationData(scratch.array(), scratch.arrayOffset(), part);
        }
        takeOutput(out);
        left -= part;
      }
      return out.retain();
    } finally {
      out.release();
      if (scratch != null) {
        scratch.release();
      }
    }
  }

  private void takeOutput(ByteBuf out) {
    int bytes = protocol.getAvailableOutputBytes();
    out.ensureWritable(bytes);
    int at = out.writerIndex();
    int got = protocol.readOutput(out.internalNioBuffer(at, bytes), bytes);
    out.writerIndex(at + got);
  }

  /** Sends what the protocol says of its own: the handshake, alerts. */
  private ChannelFuture sendOutput(ChannelHandlerContext ctx) {
    int bytes = protocol.getAvailableOutputBytes();
    if (bytes == 0) {
      return ctx.newSucceededFuture();
    }
    ByteBuf out = ctx.alloc().directBuffer(bytes);
    takeOutput(out);
    return ctx.writeAndFlush(out);
  }

  private void failWrites(Throwable cause) {
    flushed = 0;
    for (PendingWrite write = writes.poll(); write != null; write = writes.poll()) {
      write.fail(cause);
    }
  }

  // The end.

  /** Says close_notify first; what was written and not yet encrypted is not sent. */
  @Override
  public void close(ChannelHandlerContext ctx, ChannelPromise promise) {
    State before = state;
    state = State.CLOSED;
    failWrites(new ClosedChannelException());
    if (!ctx.channel().isActive()) {
      var _ = ctx.close(promise);
      return;
    }
    try {
      protocol.close();
    } catch (IOException | RuntimeException e) {
      ctx.fireExceptionCaught(new SSLException("cannot close TLS: " + e.getMessage(), e));
    }
    closeAfterOutput(ctx, promise);
    if (before == State.HANDSHAKING) {
      fireHandshakeFailure(ctx, new ClosedChannelException());
    }
  }

  private void closeAfterOutput(ChannelHandlerContext ctx, ChannelPromise promise) {
    Channel channel = ctx.channel();
    ScheduledFuture<?> deadline =
        ctx.executor()
            .schedule(
                () -> channel.unsafe().close(channel.voidPromise()),
                CLOSE_MILLIS,
                TimeUnit.MILLISECONDS);
    var _ =
        sendOutput(ctx)
            .addListener(_ -> {
              deadline.cancel(false);
              var _ = ctx.close(promise);
            });
  }
}
