package io.qnbd.protocol;

import java.util.List;

/**
 * What a finished handshake agreed on.
 *
 * @param replies the layout of requests and replies
 * @param contexts the metadata contexts that were selected for this export
 */
public record Negotiated(ExportInfo export, ReplyMode replies, List<SelectedContext> contexts) {

  public Negotiated {
    contexts = List.copyOf(contexts);
    if (replies == ReplyMode.SIMPLE && !contexts.isEmpty()) {
      throw new IllegalArgumentException("metadata contexts need replies in chunks");
    }
  }

  /** The contexts that {@code request}, which {@link RequestRules} lets pass, asks for. */
  public List<SelectedContext> contextsOf(Request.BlockStatus request) {
    List<Integer> wanted = request.contextIds();
    return wanted == null
        ? contexts
        : contexts.stream().filter(context -> wanted.contains(context.id())).toList();
  }
}
