package io.qnbd.protocol.codec;

import io.netty.channel.ChannelHandlerContext;
import io.qnbd.protocol.Negotiated;

/** What a handshake leads to. Called on the connection's event loop. */
public interface HandshakeListener {

  /**
   * The client was told that TLS begins, and the channel is not read until this method returns: it
   * adds the handler that does TLS as the first of the pipeline. That handler's {@code
   * SslHandshakeCompletionEvent} then tells the decoder how it went. Called at most once.
   *
   * @param decoder where the handshake's decoder stands in the pipeline
   */
  void startTls(ChannelHandlerContext decoder);

  /**
   * The client chose an export. The last replies are sent when {@code enter} is run, on the event
   * loop, now or later; until then no request is read.
   */
  void chosen(Negotiated negotiated, Runnable enter);

  /**
   * The last replies were sent; what follows are requests. The listener adds the handlers that take
   * them; the handshake's handler then hands on what it has already received and leaves.
   */
  void transmitting(Negotiated negotiated);

  /** No export was chosen; the connection is being closed. */
  void failed(String reason);
}
