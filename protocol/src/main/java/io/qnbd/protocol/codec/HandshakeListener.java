package io.qnbd.protocol.codec;

import io.qnbd.protocol.handshake.Negotiated;

/** What a handshake ends in. Called on the connection's event loop, once. */
public interface HandshakeListener {

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
