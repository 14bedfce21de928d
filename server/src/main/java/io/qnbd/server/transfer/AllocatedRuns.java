package io.qnbd.server.transfer;

import io.qnbd.image.DiskImage;
import java.io.IOException;

/**
 * Which ranges of a disk are allocated, asked for in ascending order.
 *
 * <p>Owner: one thread.
 */
final class AllocatedRuns {
  private final DiskImage disk;
  private final long bytes;
  private Run last = new Run(0, false);

  /** A range that ends at {@code end}; allocated is what some image of the chain answers for. */
  record Run(long end, boolean allocated) {}

  AllocatedRuns(DiskImage disk, long bytes) {
    this.disk = disk;
    this.bytes = bytes;
  }

  Run at(long offset) throws IOException {
    if (offset >= last.end()) {
      disk.extents(
          offset,
          bytes - offset,
          (count, state) -> {
            last = new Run(offset + count, state.depth() > 0);
            return false;
          });
    }
    return last;
  }
}
