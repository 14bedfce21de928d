package io.qnbd.protocol;

/**
 * The answer to a request. Whether it becomes a simple reply or a chunk is the encoder's matter.
 */
public sealed interface Reply {

  Request request();

  /** Done, and no data follows. */
  record Done(Request request) implements Reply {}

  /** {@code request.bytes()} bytes of data follow, at least one. */
  record Data(Request.Read request) implements Reply {}

  /**
   * Not done, or done in part.
   *
   * @param text one sentence for the client's log; crosses only where the reply has room for it
   */
  record Failed(Request request, NbdError error, String text) implements Reply {}
}
