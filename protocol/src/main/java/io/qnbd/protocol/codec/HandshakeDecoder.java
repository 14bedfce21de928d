package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.socket.ChannelInputShutdownEvent;
import io.netty.handler.ssl.SslCloseCompletionEvent;
import io.netty.handler.ssl.SslHandshakeCompletionEvent;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.OptionReply;
import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.handshake.Handshake;
import io.qnbd.protocol.handshake.Step;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * Speaks a {@link Handshake} on a connection and leaves the pipeline when requests follow.
 *
 * <pre>
 * server: "NBDMAGIC" "IHAVEOPT" u16 flags
 * client: u32 flags
 * client: "IHAVEOPT" u32 option, u32 bytes, data     repeated
 * </pre>
 *
 * <p>STARTTLS hands the channel to a TLS handler in front of this one, see {@link #startTls}; this
 * one then goes on with what that one has decrypted.
 *
 * <p>All answers to one option go out in one write, so that no client waits for Nagle's timer. Data
 * that nobody looks at is skipped as it comes and never collected. While the client does not read
 * the answers, no further option is looked at.
 *
 * <p>Owner: the connection's event loop.
 */
public final class HandshakeDecoder extends ChannelInboundHandlerAdapter {
  private static final long GREETING_MAGIC = 0x4e42444d41474943L; // "NBDMAGIC"
  private static final long OPTION_MAGIC = 0x49484156454f5054L; // "IHAVEOPT"
  private static final int GREETING_BYTES = 18;
  private static final int OPTION_HEADER_BYTES = 16;

  private enum Expecting {
    CLIENT_FLAGS,
    OPTION_HEADER,
    OPTION_DATA,
    /** Like OPTION_DATA, but {@code optionBytesLeft} bytes are dropped as they come. */
    SKIPPED_DATA,
    /** TLS was agreed on and the client is being told; nothing may come until it was. */
    TLS_START,
    /** The TLS handler, in front of this one, talks; nothing may come until it is done. */
    TLS_HANDSHAKE,
    /** An export was chosen; what comes now belongs to the next handler. */
    REQUESTS,
    /** Nothing more is believed. */
    NOTHING
  }

  private final Handshake handshake;
  private final HandshakeListener listener;
  private Expecting expecting = Expecting.CLIENT_FLAGS;
  private ByteBuf received = Unpooled.EMPTY_BUFFER;

  /** Whether {@code received} is this handler's own buffer and not one of the channel's. */
  private boolean joined;

  private OptionRequest skipped = new OptionRequest.Unknown(0);
  private int option;
  private long optionBytesLeft;
  private boolean inputEnded;

  public HandshakeDecoder(Handshake handshake, HandshakeListener listener) {
    this.handshake = handshake;
    this.listener = listener;
  }

  @Override
  public void channelActive(ChannelHandlerContext ctx) {
    ByteBuf greeting = ctx.alloc().buffer(GREETING_BYTES);
    greeting.writeLong(GREETING_MAGIC).writeLong(OPTION_MAGIC).writeShort(Handshake.FLAGS_OFFERED);
    var _ = ctx.writeAndFlush(greeting);
    ctx.fireChannelActive();
  }

  /** Takes over {@code message}, a ByteBuf. */
  @Override
  public void channelRead(ChannelHandlerContext ctx, Object message) {
    ByteBuf bytes = (ByteBuf) message;
    if (expecting == Expecting.NOTHING) {
      bytes.release();
      return;
    }
    if (expecting == Expecting.TLS_START || expecting == Expecting.TLS_HANDSHAKE) {
      bytes.release();
      fail(ctx, "bytes in clear behind STARTTLS");
      return;
    }
    if (received.isReadable()) {
      append(ctx, bytes);
    } else {
      received.release();
      received = bytes;
      joined = false;
    }
    decode(ctx);
  }

  /**
   * Puts {@code bytes}, which it takes over, behind what was received. The buffer is kept and grows
   * by doubling: a client that sends an option byte by byte does not have it copied as often.
   */
  private void append(ChannelHandlerContext ctx, ByteBuf bytes) {
    if (!joined) {
      ByteBuf own = ctx.alloc().buffer(received.readableBytes() + bytes.readableBytes());
      own.writeBytes(received);
      received.release();
      received = own;
      joined = true;
    }
    received.discardSomeReadBytes().writeBytes(bytes);
    bytes.release();
  }

  @Override
  public void channelWritabilityChanged(ChannelHandlerContext ctx) {
    decode(ctx);
    ctx.fireChannelWritabilityChanged();
  }

  @Override
  public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
    if (event instanceof SslHandshakeCompletionEvent tls) {
      takeTlsOutcome(ctx, tls);
    } else if (event instanceof ChannelInputShutdownEvent
        || event instanceof SslCloseCompletionEvent) {
      inputEnded = true;
      if (expecting != Expecting.REQUESTS) {
        fail(ctx, "the client stopped sending");
      }
    }
    ctx.fireUserEventTriggered(event);
  }

  @Override
  public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
    fail(ctx, cause.toString());
  }

  @Override
  public void channelInactive(ChannelHandlerContext ctx) {
    fail(ctx, "the client went away");
    ctx.fireChannelInactive();
  }

  @Override
  public void handlerRemoved(ChannelHandlerContext ctx) {
    ByteBuf rest = received;
    received = Unpooled.EMPTY_BUFFER;
    if (expecting == Expecting.REQUESTS && rest.isReadable()) {
      ctx.fireChannelRead(rest);
      ctx.fireChannelReadComplete();
    } else {
      rest.release();
    }
    if (expecting == Expecting.REQUESTS && inputEnded) {
      // It came before there was anyone to see it.
      ctx.fireUserEventTriggered(ChannelInputShutdownEvent.INSTANCE);
    }
  }

  /** Decodes what has come, as long as the client also takes the answers. */
  private void decode(ChannelHandlerContext ctx) {
    boolean more = true;
    while (more && ctx.channel().isWritable()) {
      more =
          switch (expecting) {
            case CLIENT_FLAGS -> decodeClientFlags(ctx);
            case OPTION_HEADER -> decodeOptionHeader(ctx);
            case OPTION_DATA -> decodeOptionData(ctx);
            case SKIPPED_DATA -> skipOptionData(ctx);
            case TLS_START, TLS_HANDSHAKE, REQUESTS, NOTHING -> false;
          };
    }
    boolean wantsMore =
        expecting != Expecting.REQUESTS
            && expecting != Expecting.TLS_START
            && ctx.channel().isWritable();
    if (!ctx.isRemoved() && ctx.channel().config().isAutoRead() != wantsMore) {
      ctx.channel().config().setAutoRead(wantsMore);
    }
  }

  private boolean decodeClientFlags(ChannelHandlerContext ctx) {
    if (received.readableBytes() < Integer.BYTES) {
      return false;
    }
    expecting = Expecting.OPTION_HEADER;
    take(ctx, handshake.clientFlags(received.readInt()));
    return true;
  }

  private boolean decodeOptionHeader(ChannelHandlerContext ctx) {
    if (received.readableBytes() < OPTION_HEADER_BYTES) {
      return false;
    }
    long magic = received.readLong();
    option = received.readInt();
    optionBytesLeft = received.readUnsignedInt();
    if (magic != OPTION_MAGIC) {
      fail(ctx, "option magic is 0x%x".formatted(magic));
    } else if (optionBytesLeft > WireLimits.OPTION_SKIP_BYTES_MAX) {
      fail(ctx, "option " + option + " with " + optionBytesLeft + " bytes of data");
    } else if (!OptionParser.reads(option)) {
      skipped = OptionParser.skipped(option, optionBytesLeft);
      expecting = Expecting.SKIPPED_DATA;
    } else if (optionBytesLeft > WireLimits.OPTION_BYTES_MAX) {
      skipped = new OptionRequest.TooBig(option, optionBytesLeft);
      expecting = Expecting.SKIPPED_DATA;
    } else {
      expecting = Expecting.OPTION_DATA;
    }
    return true;
  }

  private boolean decodeOptionData(ChannelHandlerContext ctx) {
    if (received.readableBytes() < optionBytesLeft) {
      return false;
    }
    byte[] data = new byte[(int) optionBytesLeft];
    received.readBytes(data);
    expecting = Expecting.OPTION_HEADER;
    take(ctx, handshake.option(OptionParser.parse(option, ByteBuffer.wrap(data))));
    return true;
  }

  private boolean skipOptionData(ChannelHandlerContext ctx) {
    int now = (int) Math.min(optionBytesLeft, received.readableBytes());
    received.skipBytes(now);
    optionBytesLeft -= now;
    if (optionBytesLeft > 0) {
      return false;
    }
    expecting = Expecting.OPTION_HEADER;
    take(ctx, handshake.option(skipped));
    return true;
  }

  private void take(ChannelHandlerContext ctx, Step step) {
    switch (step.next()) {
      case Step.Next.Negotiating _ -> {
        var _ = send(ctx, step.replies());
      }
      case Step.Next.Closing(String reason) -> {
        var _ = send(ctx, step.replies());
        fail(ctx, reason);
      }
      case Step.Next.StartingTls _ -> {
        expecting = Expecting.TLS_START;
        startTls(ctx, step.replies());
      }
      case Step.Next.Transmitting(Negotiated negotiated) -> {
        expecting = Expecting.REQUESTS;
        listener.chosen(negotiated, () -> enter(ctx, step.replies(), negotiated));
      }
    }
  }

  private void enter(ChannelHandlerContext ctx, List<OptionReply> replies, Negotiated negotiated) {
    if (!ctx.channel().isActive()) {
      return;
    }
    var _ = send(ctx, replies);
    listener.transmitting(negotiated);
    ctx.channel().config().setAutoRead(true);
    ctx.pipeline().remove(this);
  }

  /**
   * Has TLS begin when the answer, the last bytes in clear, has reached the socket. Until then the
   * channel is not read, and what has been read behind STARTTLS ends the connection: it may be
   * anyone's, and must not be taken for something that came over TLS.
   */
  private void startTls(ChannelHandlerContext ctx, List<OptionReply> replies) {
    ctx.channel().config().setAutoRead(false);
    boolean injected = received.isReadable();
    ChannelFuture sent = send(ctx, replies);
    if (injected) {
      fail(ctx, "bytes in clear behind STARTTLS");
      return;
    }
    sent.addListener(future -> {
      if (expecting != Expecting.TLS_START) {
        return;
      }
      if (!future.isSuccess()) {
        fail(ctx, "the answer to STARTTLS could not be sent");
        return;
      }
      expecting = Expecting.TLS_HANDSHAKE;
      listener.startTls(ctx);
      ctx.channel().config().setAutoRead(true);
    });
  }

  private void takeTlsOutcome(ChannelHandlerContext ctx, SslHandshakeCompletionEvent outcome) {
    if (expecting != Expecting.TLS_HANDSHAKE) {
      return;
    }
    if (outcome.isSuccess()) {
      handshake.tlsEstablished();
      expecting = Expecting.OPTION_HEADER;
    } else {
      // Its text may hold all of what the client sent; quoted, it is cut.
      Throwable cause = outcome.cause();
      String message = cause.getMessage();
      fail(ctx, "TLS failed: " + WireStrings.quote(message == null ? cause.toString() : message));
    }
  }

  private static ChannelFuture send(ChannelHandlerContext ctx, List<OptionReply> replies) {
    if (replies.isEmpty()) {
      return ctx.newSucceededFuture();
    }
    ByteBuf out = ctx.alloc().buffer();
    for (OptionReply reply : replies) {
      OptionReplyEncoder.put(out, reply);
    }
    return ctx.writeAndFlush(out);
  }

  private void fail(ChannelHandlerContext ctx, String reason) {
    if (expecting == Expecting.NOTHING) {
      return;
    }
    boolean talksTls = expecting == Expecting.TLS_HANDSHAKE;
    expecting = Expecting.NOTHING;
    listener.failed(reason);
    if (talksTls) {
      // Nothing that is written now would leave before TLS is up, which it may never be.
      var _ = ctx.close();
      return;
    }
    // After what was written before, if anything was.
    ctx.writeAndFlush(Unpooled.EMPTY_BUFFER).addListener(ChannelFutureListener.CLOSE);
  }
}
