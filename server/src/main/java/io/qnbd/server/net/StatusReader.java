package io.qnbd.server.net;

import io.qnbd.image.UnsupportedImageException;
import io.qnbd.protocol.ContextExtents;
import io.qnbd.protocol.Extent;
import io.qnbd.protocol.ExtentCollector;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.SelectedContext;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.StatusContext;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/**
 * Answers BLOCK_STATUS from the contexts that a connection has selected. A bitmap that was removed
 * since is an error of the request.
 *
 * <p>Immutable, thread-safe; a call blocks as long as the image does.
 */
final class StatusReader {
  /**
   * The most data of a context in one reply: as much as a connection may hold without asking. A
   * client goes on where a reply ends.
   */
  static final int REPLY_BYTES_MAX = 128 << 10;

  private final Export export;
  private final Negotiated negotiated;

  StatusReader(Export export, Negotiated negotiated) {
    this.export = export;
    this.negotiated = negotiated;
  }

  /** The reply to a request that is legal. */
  Reply read(Request.BlockStatus request) throws IOException {
    List<ContextExtents> answers = new ArrayList<>();
    for (SelectedContext selected : negotiated.contextsOf(request)) {
      StatusContext context =
          export
              .statusContext(selected.name())
              .orElseThrow(
                  () -> new UnsupportedImageException(selected.name() + " is not there any more"));
      answers.add(new ContextExtents(selected.id(), extents(context, request)));
    }
    return new Reply.Extents(request, answers);
  }

  private List<Extent> extents(StatusContext context, Request.BlockStatus request)
      throws IOException {
    ExtentCollector collector = new ExtentCollector(request, negotiated.replies(), REPLY_BYTES_MAX);
    context.ask(export.image(), request.offset(), request.bytes(), collector::add);
    return collector.extents();
  }
}
