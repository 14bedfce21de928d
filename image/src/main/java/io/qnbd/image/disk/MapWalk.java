package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.MapExtent;
import io.qnbd.image.MapSink;
import io.qnbd.image.io.Storage;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;
import java.util.List;

/**
 * Tells where the ranges of a disk are, with the backing chain below: {@link ExtentWalk} for people
 * and tools that want to know the place too.
 *
 * <p>The metadata lock is held for one L2 slice at a time, and the sink is called without it.
 * Thread-safe.
 */
final class MapWalk {
  private static final MapExtent ZEROES = new MapExtent(0, true, true, false, false, -1);
  private static final MapExtent COMPRESSED = new MapExtent(0, true, false, true, true, -1);
  private static final MapExtent ABSENT = new MapExtent(0, false, true, false, false, -1);

  private final Layers layers;

  MapWalk(Layers layers) {
    this.layers = layers;
  }

  void walk(long offset, long bytes, MapSink sink) throws IOException {
    Merger merger = new Merger(sink);
    long end = offset + bytes;
    for (long at = offset; at < end && !merger.stopped; ) {
      for (Mapping run : runs(at, end - at)) {
        tell(run, at, merger);
        at += run.bytes();
      }
    }
    merger.end();
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
      case Mapping.Data data -> tellData(data.hostOffset(), data.bytes(), merger);
      case Mapping.Compressed _ -> merger.extent(run.bytes(), COMPRESSED);
      case Mapping.Zeros zeros ->
          merger.extent(
              zeros.bytes(),
              zeros.allocated()
                  ? new MapExtent(0, true, true, false, false, zeros.hostOffset())
                  : ZEROES);
      case Mapping.Unallocated _ -> tellBacking(offset, run.bytes(), merger);
    }
  }

  /**
   * Preallocated clusters are data by the tables, and holes by what the host says. Holes in a part
   * of a cluster are passed over: a guest that writes leaves many.
   */
  private void tellData(long hostOffset, long bytes, Merger merger) throws IOException {
    Storage file = layers.data();
    long end = hostOffset + bytes;
    for (long at = hostOffset; at < end; ) {
      long data = file.nextData(at, end);
      long dataStart = data == end ? end : data - layers.geometry().inCluster(data);
      if (dataStart > at) {
        merger.extent(dataStart - at, new MapExtent(0, true, true, true, false, at));
        at = dataStart;
      }
      if (at < end) {
        long hole = Math.max(at + 1, file.nextHole(Math.max(at, data), end));
        long next = Math.min(end, layers.geometry().offsetOf(layers.geometry().clustersFor(hole)));
        merger.extent(next - at, new MapExtent(0, true, false, true, false, at));
        at = next;
      }
    }
  }

  private void tellBacking(long offset, long bytes, Merger merger) throws IOException {
    DiskImage backing = layers.backing();
    long there = backing == null ? 0 : Math.clamp(backing.virtualBytes() - offset, 0, bytes);
    if (backing != null && there > 0 && !merger.stopped) {
      backing.map(offset, there, (count, extent) -> merger.extent(count, extent.fromAbove()));
    }
    if (there < bytes) {
      merger.extent(bytes - there, ABSENT);
    }
  }

  /** Joins neighbours that go on where the one before ends. */
  private static final class Merger implements MapSink {
    private final MapSink sink;
    private MapExtent pending = ABSENT;
    private long pendingBytes;
    private boolean stopped;

    Merger(MapSink sink) {
      this.sink = sink;
    }

    @Override
    public boolean extent(long bytes, MapExtent next) {
      if (!next.equals(pending.after(pendingBytes))) {
        end();
        pending = next;
      }
      pendingBytes += bytes;
      return !stopped;
    }

    /** Tells what was joined so far. */
    void end() {
      if (pendingBytes > 0 && !stopped) {
        stopped = !sink.extent(pendingBytes, pending);
      }
      pendingBytes = 0;
    }
  }
}
