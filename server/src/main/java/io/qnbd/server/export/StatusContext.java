package io.qnbd.server.export;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentState;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/**
 * What a client can ask about the blocks of an export, a metadata context: by which name, and with
 * which answers.
 */
public sealed interface StatusContext {

  /** Takes what is known of consecutive ranges; false asks for no more. */
  @FunctionalInterface
  interface Sink {
    boolean extent(long bytes, long flags);
  }

  /** Tells the state of {@code [offset, offset + bytes)} in ascending pieces; may block. */
  void ask(DiskImage image, long offset, long bytes, Sink sink) throws IOException;

  String name();

  /** What {@code image} can tell at this moment. */
  static List<StatusContext> offeredBy(DiskImage image) {
    List<StatusContext> contexts = new ArrayList<>();
    contexts.add(new Allocation());
    contexts.add(new Depth());
    for (BitmapInfo bitmap : image.consistentBitmaps()) {
      contexts.add(new DirtyBitmap(bitmap.name()));
    }
    return contexts;
  }

  /** Bit 0: no space is taken, so a write may need some; bit 1: it reads as zeroes. */
  record Allocation() implements StatusContext {
    private static final long HOLE = 1;
    private static final long ZERO = 2;

    @Override
    public String name() {
      return "base:allocation";
    }

    @Override
    public void ask(DiskImage image, long offset, long bytes, Sink sink) throws IOException {
      image.extents(offset, bytes, (length, state) -> sink.extent(length, flagsOf(state)));
    }

    private static long flagsOf(ExtentState state) {
      return (state.hole() ? HOLE : 0) | (state.zero() ? ZERO : 0);
    }
  }

  /**
   * In which image of the backing chain a range is allocated: 0 nowhere, 1 in the one that is
   * served, 2 in its backing file. Defined by QEMU (docs/interop/nbd).
   */
  record Depth() implements StatusContext {
    @Override
    public String name() {
      return "qemu:allocation-depth";
    }

    @Override
    public void ask(DiskImage image, long offset, long bytes, Sink sink) throws IOException {
      image.extents(offset, bytes, (length, state) -> sink.extent(length, state.depth()));
    }
  }

  /**
   * Bit 0: the range changed since the bitmap began. Defined by QEMU (docs/interop/nbd). An enabled
   * bitmap grows while it is asked; a write that was answered before the question is in the answer.
   */
  record DirtyBitmap(String bitmap) implements StatusContext {
    @Override
    public String name() {
      return "qemu:dirty-bitmap:" + bitmap;
    }

    @Override
    public void ask(DiskImage image, long offset, long bytes, Sink sink) throws IOException {
      image.dirtyExtents(
          bitmap, offset, bytes, (length, dirty) -> sink.extent(length, dirty ? 1 : 0));
    }
  }
}
