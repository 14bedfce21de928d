package io.qnbd.protocol;

import java.util.List;

/**
 * The status of a range in one metadata context.
 *
 * @param id the context's, see {@link SelectedContext}
 * @param extents without gaps from the offset asked for, at least one; {@link ExtentCollector}
 *     makes them such that the protocol allows them. Not copied: there may be a million.
 */
public record ContextExtents(int id, List<Extent> extents) {

  public ContextExtents {
    if (extents.isEmpty()) {
      throw new IllegalArgumentException("context " + id + " has no extent, expected at least 1");
    }
  }
}
