package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.codec.RequestListener.Admission;
import java.util.ArrayDeque;
import org.jspecify.annotations.Nullable;

/**
 * Cuts the bytes of the transmission phase into requests (NBD protocol, "Request message").
 *
 * <pre>
 *                                         +-- REFUSE --> SKIP --+
 *                                         |                     | all data has come: received
 * HEADER -------------------------> OFFER-+-- ACCEPT --> DATA --+--> HEADER
 *   |                                 ^   |
 *   | BLOCK_STATUS with a payload     |   +-- WAIT ----> OFFER, until resume
 *   +---> STATUS_PAYLOAD -------------+
 *           it has come
 *   any state: malformed, end ----> ENDED, everything is dropped
 * </pre>
 *
 * <p>Received buffers are kept in a queue and never joined. Data that lies in one of them is
 * delivered as a slice of it; data that spans several is copied into one buffer, because one write
 * of a whole range costs the image far less than the copy. That buffer starts at what has come or
 * {@link #DATA_BYTES_TRUSTED} and doubles as more comes, so that a client pays for memory with
 * bytes.
 *
 * <p>With {@link ReceiveBuffers} the socket is read into that buffer directly, see {@link #lend}.
 *
 * <p>While it waits it turns the channel's reading off, so that the queue holds no more than what
 * one round of reading brought.
 *
 * <p>Owner: the connection's event loop.
 */
public final class RequestDecoder extends ChannelInboundHandlerAdapter {
  private static final int DATA_BYTES_TRUSTED = 1 << 20;

  /** Less than this is read together with what follows it, which spares a system call. */
  private static final int LENT_BYTES_MIN = 32 << 10;

  private enum State {
    HEADER,
    STATUS_PAYLOAD,
    OFFER,
    DATA,
    SKIP,
    ENDED
  }

  private final RequestListener listener;
  private final RequestHeader layout;
  private final int dataBytesMax;
  private final ArrayDeque<ByteBuf> queue = new ArrayDeque<>();
  private final ByteBuf splitHeader;
  private State state = State.HEADER;
  private @Nullable ChannelHandlerContext context;
  private Request request = RequestHeader.NONE;
  private long dataBytesLeft;
  private @Nullable ByteBuf data;

  /** What has come of the payload of a BLOCK_STATUS; on the heap, so nobody has to release it. */
  private ByteBuf statusPayload = Unpooled.EMPTY_BUFFER;

  /** The part of {@code data} that the channel reads into; null when it reads elsewhere. */
  private @Nullable ByteBuf lent;

  private boolean decoding;
  private boolean reading = true;

  /**
   * @param replies says which headers requests have
   * @param dataBytesMax the most data of one request; a client that announces more is cut off
   */
  public RequestDecoder(RequestListener listener, ReplyMode replies, int dataBytesMax) {
    this.listener = listener;
    this.layout = RequestHeader.of(replies);
    this.splitHeader = Unpooled.buffer(layout.bytes(), layout.bytes());
    this.dataBytesMax = dataBytesMax;
  }

  /** Whether a request was told to wait. */
  public boolean waiting() {
    return state == State.OFFER;
  }

  /** Bytes of the current request's data that have come so far. */
  public long dataBytesReceived() {
    return request.dataBytes() - dataBytesLeft;
  }

  /** Decodes on after a {@link Admission#WAIT}; does nothing when none is waiting. */
  public void resume() {
    if (state == State.OFFER && !decoding) {
      decode();
    }
  }

  /** Says whether bytes may be read from the channel at all; what has come is decoded anyway. */
  public void setReading(boolean on) {
    reading = on;
    updateAutoRead();
  }

  /** Drops what has come and all that will come. */
  public void end() {
    state = State.ENDED;
    if (!decoding) {
      releaseAll();
    }
  }

  @Override
  public void handlerAdded(ChannelHandlerContext ctx) {
    context = ctx;
  }

  /** Takes over {@code message}, a ByteBuf; one that was lent is recognised by its identity. */
  @Override
  @SuppressWarnings("ReferenceEquality")
  public void channelRead(ChannelHandlerContext ctx, Object message) {
    ByteBuf bytes = (ByteBuf) message;
    if (state == State.ENDED || !bytes.isReadable()) {
      bytes.release();
      return;
    }
    if (bytes == lent) {
      takeBack(bytes);
    } else {
      queue.add(bytes);
    }
    if (state != State.OFFER && !decoding) {
      decode();
    }
  }

  @Override
  public void channelReadComplete(ChannelHandlerContext ctx) {
    listener.paused();
    ctx.fireChannelReadComplete();
  }

  @Override
  public void channelInactive(ChannelHandlerContext ctx) {
    end();
    ctx.fireChannelInactive();
  }

  @Override
  public void handlerRemoved(ChannelHandlerContext ctx) {
    end();
  }

  private void decode() {
    decoding = true;
    try {
      while (step()) {
        // Until input runs out or a request has to wait.
      }
    } finally {
      decoding = false;
    }
    if (state == State.ENDED) {
      releaseAll();
    }
    updateAutoRead();
  }

  /** One transition; false when there is nothing to do for now. */
  private boolean step() {
    if (state == State.OFFER) {
      return offer();
    }
    ByteBuf in = queue.peek();
    if (in == null || state == State.ENDED) {
      return false;
    }
    switch (state) {
      case HEADER -> takeHeader(in);
      case STATUS_PAYLOAD -> takeStatusPayload(in);
      case DATA -> takeData(in);
      case SKIP -> skipData(in);
      case OFFER, ENDED -> throw new AssertionError(state);
    }
    if (!in.isReadable()) {
      queue.remove();
      in.release();
    }
    return true;
  }

  /**
   * The place where the data that comes next belongs, if only data can come next. The channel reads
   * into it and passes it to {@link #channelRead} or, if nothing came, releases it.
   *
   * <p>Nothing is lent when another handler comes first: what the channel reads is not the data
   * then, but what TLS makes it from.
   */
  @Nullable ByteBuf lend() {
    lent = null;
    ByteBuf collected = data;
    if (collected == null
        || state != State.DATA
        || dataBytesLeft < LENT_BYTES_MIN
        || !queue.isEmpty()
        || !isFirstInPipeline()) {
      return null;
    }
    if (!collected.isWritable()) {
      grow(collected, 1);
    }
    int bytes = (int) Math.min(dataBytesLeft, collected.writableBytes());
    lent = collected.retainedSlice(collected.writerIndex(), bytes).clear();
    return lent;
  }

  @SuppressWarnings("ReferenceEquality") // The same handler, not an equal one.
  private boolean isFirstInPipeline() {
    return contextOf().pipeline().first() == this;
  }

  /** The bytes are in place already; counts them. */
  private void takeBack(ByteBuf filled) {
    int bytes = filled.readableBytes();
    filled.release();
    lent = null;
    ByteBuf collected = data;
    if (collected == null || state != State.DATA) {
      throw new AssertionError("data came back in state " + state);
    }
    collected.writerIndex(collected.writerIndex() + bytes);
    dataBytesLeft -= bytes;
    if (dataBytesLeft == 0) {
      data = null;
      deliver(collected);
    }
  }

  private void takeHeader(ByteBuf in) {
    ByteBuf header = in;
    if (splitHeader.isReadable() || in.readableBytes() < layout.bytes()) {
      in.readBytes(splitHeader, Math.min(splitHeader.writableBytes(), in.readableBytes()));
      if (splitHeader.isWritable()) {
        return;
      }
      header = splitHeader;
    }
    int at = header.readerIndex();
    if (!layout.hasMagic(header, at)) {
      fail("request magic is 0x%x".formatted(header.getInt(at)));
      return;
    }
    request = layout.parse(header, at);
    header.skipBytes(layout.bytes());
    splitHeader.clear();
    dataBytesLeft = request.dataBytes();
    if (Long.compareUnsigned(dataBytesLeft, dataBytesMax) > 0) {
      fail(
          "request with %s bytes of data, at most %d are taken"
              .formatted(Long.toUnsignedString(dataBytesLeft), dataBytesMax));
      return;
    }
    int statusPayloadBytes = RequestHeader.statusPayloadBytes(request);
    if (statusPayloadBytes > 0) {
      statusPayload = Unpooled.buffer(statusPayloadBytes, statusPayloadBytes);
      state = State.STATUS_PAYLOAD;
    } else {
      state = State.OFFER;
    }
  }

  private void takeStatusPayload(ByteBuf in) {
    in.readBytes(statusPayload, Math.min(statusPayload.writableBytes(), in.readableBytes()));
    if (!statusPayload.isWritable()) {
      request = RequestHeader.parseStatusPayload(request, statusPayload);
      statusPayload = Unpooled.EMPTY_BUFFER;
      dataBytesLeft = 0;
      state = State.OFFER;
    }
  }

  private boolean offer() {
    Admission admission = listener.admit(request);
    if (state == State.ENDED) {
      return false;
    }
    switch (admission) {
      case WAIT -> {
        return false;
      }
      case ACCEPT -> state = State.DATA;
      case REFUSE -> state = State.SKIP;
    }
    if (dataBytesLeft == 0) {
      deliver(Unpooled.EMPTY_BUFFER);
    }
    return true;
  }

  private void takeData(ByteBuf in) {
    int readable = in.readableBytes();
    ByteBuf collected = data;
    if (collected == null) {
      if (readable >= dataBytesLeft) {
        ByteBuf slice = in.readRetainedSlice((int) dataBytesLeft);
        deliver(slice);
        return;
      }
      int capacity = Math.max(readable, DATA_BYTES_TRUSTED);
      collected =
          contextOf().alloc().directBuffer((int) Math.min(dataBytesLeft, capacity), dataBytesMax);
      data = collected;
    }
    int now = (int) Math.min(dataBytesLeft, readable);
    if (collected.writableBytes() < now) {
      grow(collected, now);
    }
    collected.writeBytes(in, now);
    dataBytesLeft -= now;
    if (dataBytesLeft == 0) {
      data = null;
      deliver(collected);
    }
  }

  /** Doubles {@code collected}, or more to make room for {@code bytes}, up to what is announced. */
  private void grow(ByteBuf collected, int bytes) {
    long doubled = Math.max(2L * collected.capacity(), collected.writerIndex() + (long) bytes);
    collected.capacity((int) Math.min(doubled, collected.writerIndex() + dataBytesLeft));
  }

  private void skipData(ByteBuf in) {
    int now = (int) Math.min(dataBytesLeft, in.readableBytes());
    in.skipBytes(now);
    dataBytesLeft -= now;
    if (dataBytesLeft == 0) {
      deliver(Unpooled.EMPTY_BUFFER);
    }
  }

  private void deliver(ByteBuf whole) {
    Request delivered = request;
    request = RequestHeader.NONE;
    dataBytesLeft = 0;
    state = State.HEADER;
    listener.received(delivered, whole);
  }

  private void fail(String reason) {
    state = State.ENDED;
    listener.malformed(reason);
  }

  private void updateAutoRead() {
    boolean on = reading && state != State.OFFER;
    ChannelHandlerContext ctx = contextOf();
    if (ctx.channel().isActive() && ctx.channel().config().isAutoRead() != on) {
      ctx.channel().config().setAutoRead(on);
    }
  }

  private void releaseAll() {
    ByteBuf collected = data;
    data = null;
    if (collected != null) {
      collected.release();
    }
    for (ByteBuf bytes = queue.poll(); bytes != null; bytes = queue.poll()) {
      bytes.release();
    }
  }

  private ChannelHandlerContext contextOf() {
    ChannelHandlerContext ctx = context;
    if (ctx == null) {
      throw new AssertionError("the decoder is in no pipeline");
    }
    return ctx;
  }
}
