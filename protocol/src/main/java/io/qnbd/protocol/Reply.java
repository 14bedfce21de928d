package io.qnbd.protocol;

import java.util.List;

/**
 * The answer to a request. Whether it becomes a simple reply or chunks is the encoder's matter.
 *
 * <p>A READ may also be answered in pieces, which the encoder writes one by one; then {@link Done}
 * or {@link Failed} is its last.
 */
public sealed interface Reply {

  Request request();

  /** Done, and no data follows. Not an answer to BLOCK_STATUS. */
  record Done(Request request) implements Reply {}

  /** {@code request.bytes()} bytes of data follow, at least one. */
  record Data(Request.Read request) implements Reply {}

  /**
   * The status of what was asked for.
   *
   * @param contexts one entry for each context that {@code request} asks for, at least one
   */
  record Extents(Request.BlockStatus request, List<ContextExtents> contexts) implements Reply {
    public Extents {
      contexts = List.copyOf(contexts);
      if (contexts.isEmpty()) {
        throw new IllegalArgumentException("no context, expected at least 1");
      }
    }
  }

  /**
   * Not done, or done in part.
   *
   * @param text one sentence for the client's log; crosses only where the reply has room for it
   * @param errorOffset where it went wrong, inside the request; {@link #NOWHERE} when unknown
   */
  record Failed(Request request, NbdError error, String text, long errorOffset) implements Reply {
    /** Stands for no particular offset. */
    public static final long NOWHERE = -1;

    /** A failure at no particular offset. */
    public Failed(Request request, NbdError error, String text) {
      this(request, error, text, NOWHERE);
    }
  }
}
