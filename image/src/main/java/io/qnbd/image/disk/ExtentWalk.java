package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ExtentState;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Tells what ranges of a disk are made of, with the backing chain below.
 *
 * <p>The metadata lock is held for one L2 slice at a time, and the sink is called without it. No
 * range lock is held: what a slice's entries say is true at the moment when they are looked up, and
 * nothing is read through them. Thread-safe.
 */
final class ExtentWalk {
  private static final ExtentState DATA = new ExtentState(false, false, 1);
  private static final ExtentState ZEROES = new ExtentState(true, true, 1);
  private static final ExtentState ALLOCATED_ZEROES = new ExtentState(false, true, 1);
  private static final ExtentState NOWHERE = new ExtentState(true, true, 0);
  private static final ExtentState PAST_BACKING = new ExtentState(true, true, 2);

  private final Layers layers;

  ExtentWalk(Layers layers) {
    this.layers = layers;
  }

  void walk(long offset, long bytes, ExtentSink sink) throws IOException {
    Merger merger = new Merger(sink);
    long at = offset;
    long end = offset + bytes;
    while (at < end && !merger.stopped) {
      for (Mapping run : runs(at, end - at)) {
        tell(run, at, merger);
        at += run.bytes();
      }
    }
    merger.end();
  }

  /** Whether all of {@code [from, to)} is known to read as zeroes. */
  boolean isZero(long from, long to) throws IOException {
    AtomicBoolean zero = new AtomicBoolean(true);
    walk(
        from,
        to - from,
        (_, state) -> {
          zero.set(state.zero());
          return state.zero();
        });
    return zero.get();
  }

  private List<Mapping> runs(long offset, long bytesMax) throws IOException {
    layers.metadata().lock();
    try {
      return layers.map().lookupSlice(offset, bytesMax);
    } finally {
      layers.metadata().unlock();
    }
  }

  private void tell(Mapping run, long offset, Merger merger) throws IOException {
    switch (run) {
      case Mapping.Data _, Mapping.Compressed _ -> merger.extent(run.bytes(), DATA);
      case Mapping.Zeros zeros ->
          merger.extent(zeros.bytes(), zeros.allocated() ? ALLOCATED_ZEROES : ZEROES);
      case Mapping.Unallocated _ -> tellBacking(offset, run.bytes(), merger);
    }
  }

  private void tellBacking(long offset, long bytes, Merger merger) throws IOException {
    DiskImage backing = layers.backing();
    if (backing == null) {
      merger.extent(bytes, NOWHERE);
      return;
    }
    long there = Math.clamp(backing.virtualBytes() - offset, 0, bytes);
    if (there > 0 && !merger.stopped) {
      backing.extents(offset, there, (count, state) -> merger.extent(count, state.fromAbove()));
    }
    if (there < bytes) {
      merger.extent(bytes - there, PAST_BACKING);
    }
  }

  /** Joins neighbours in the same state, and remembers that the sink wants no more. */
  private static final class Merger implements ExtentSink {
    private final ExtentSink sink;
    private ExtentState state = NOWHERE;
    private long pendingBytes;
    private boolean stopped;

    Merger(ExtentSink sink) {
      this.sink = sink;
    }

    @Override
    public boolean extent(long bytes, ExtentState next) {
      if (!next.equals(state)) {
        end();
        state = next;
      }
      pendingBytes += bytes;
      return !stopped;
    }

    /** Tells what was joined so far. */
    void end() {
      if (pendingBytes > 0 && !stopped) {
        stopped = !sink.extent(pendingBytes, state);
      }
      pendingBytes = 0;
    }
  }
}
