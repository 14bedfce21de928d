package io.qnbd.protocol.handshake;

import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.OptionReply;
import java.util.List;

/**
 * What one message of the client leads to.
 *
 * @param replies what to send, in order and in one write
 * @param next what to do after that
 */
public record Step(List<OptionReply> replies, Next next) {

  public Step {
    replies = List.copyOf(replies);
  }

  /** Where the handshake stands. */
  public sealed interface Next {
    /** The next option may come. */
    record Negotiating() implements Next {}

    /** The connection is over once the replies are sent. */
    record Closing(String reason) implements Next {}

    /** TLS begins once the replies are sent, which are the last bytes in clear. */
    record StartingTls() implements Next {}

    /** Requests follow. */
    record Transmitting(Negotiated negotiated) implements Next {}
  }
}
