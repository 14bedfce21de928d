package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentState;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** Goes over a disk run by run: what is in one state, a piece of bounded length at a time. */
final class Runs {
  /** Extents that are looked up together. */
  private static final int EXTENTS_MAX = 1024;

  /** Bytes that are worked on at a time: some clusters of any size. */
  static final int PIECE_BYTES = 4 << 20;

  private record Run(long offset, long bytes, ExtentState state) {}

  /** Does something about a piece of a disk. */
  interface Work {
    void on(long offset, long bytes, ExtentState state) throws IOException;
  }

  private Runs() {}

  /**
   * Works on the first {@code end} bytes of the disk, in pieces that end at multiples of theirs.
   */
  static void forEach(DiskImage image, long end, Work work) throws IOException {
    for (long at = 0; at < end; ) {
      List<Run> runs = look(image, at, end);
      for (Run run : runs) {
        at = run.offset() + run.bytes();
        for (long from = run.offset(); from < at; ) {
          long to = Math.min(at, (from / PIECE_BYTES + 1) * PIECE_BYTES);
          work.on(from, to - from, run.state());
          from = to;
        }
      }
    }
  }

  private static List<Run> look(DiskImage image, long from, long end) throws IOException {
    List<Run> runs = new ArrayList<>();
    long[] next = {from};
    image.extents(
        from,
        end - from,
        (bytes, state) -> {
          runs.add(new Run(next[0], bytes, state));
          next[0] += bytes;
          return runs.size() < EXTENTS_MAX;
        });
    return runs;
  }

  /** Reads a piece; what lies behind the disk's end reads as zeroes. */
  static ByteBuffer read(DiskImage image, long offset, int bytes) throws IOException {
    ByteBuffer target = ByteBuffer.allocate(bytes);
    long there = Math.clamp(image.virtualBytes() - offset, 0, bytes);
    if (there > 0) {
      image.read(offset, target.limit((int) there));
    }
    return target.clear();
  }
}
