package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.qnbd.protocol.Request;

/** Takes the requests of a {@link RequestDecoder}, on the connection's event loop. */
public interface RequestListener {

  /** What becomes of a request whose header has come. */
  enum Admission {
    /** Deliver it, with its data once all of that has come. */
    ACCEPT,
    /** Deliver it once its data has come, without that data, which is dropped as it comes. */
    REFUSE,
    /** Stop decoding; {@link RequestDecoder#resume} offers the same request again. */
    WAIT
  }

  /** Asked with the header alone, before anything is allocated for the request. */
  Admission admit(Request request);

  /**
   * A whole request.
   *
   * @param data the data of an accepted WRITE, which the listener releases, from its reader to its
   *     writer index; empty for anything else
   */
  void received(Request request, ByteBuf data);

  /** All requests that could be decoded for now were delivered: the time to flush replies. */
  void paused();

  /** The client broke the protocol beyond repair; nothing more is decoded. */
  void malformed(String reason);
}
