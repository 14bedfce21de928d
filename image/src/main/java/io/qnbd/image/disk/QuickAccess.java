package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImage.Attempt;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Reads and writes for threads that must not wait: what takes a table that is not cached, a lock
 * that somebody has, or bytes that are not in the host's memory is left to others.
 *
 * <p>A read holds no range. Rule 4 holds for it all the same: a cluster that was looked up is still
 * the guest's as long as {@link io.qnbd.image.refcount.Allocator#unusedEpoch} is the same after the
 * bytes were read as before the look-up; otherwise they are thrown away. A change that is under way
 * meanwhile is seen or not seen, as if the read came after or before it: new bytes are in their
 * cluster before an entry names it. For a compressed cluster that was decompressed before, that is
 * said of the host cluster that its stream is in: until that is unused, no other stream is put
 * there.
 *
 * <p>Thread-safe.
 */
final class QuickAccess {
  /** The metadata lock is held for well under a microsecond, unless a table is being read. */
  private static final int LOCK_TRIES = 20;

  private final Layers layers;
  private final RangeLock clusters;
  private final DirtyBitmaps bitmaps;

  QuickAccess(Layers layers, RangeLock clusters, DirtyBitmaps bitmaps) {
    this.layers = layers;
    this.clusters = clusters;
    this.bitmaps = bitmaps;
  }

  /** As {@link DiskImage#tryRead}; damage is left to be found by a read in earnest. */
  Attempt read(long offset, ByteBuffer target) throws IOException {
    long epoch = layers.allocator().unusedEpoch();
    int start = target.position();
    int limit = target.limit();
    Attempt attempt = readRuns(offset, target);
    if (attempt == Attempt.DONE && layers.allocator().unusedEpoch() == epoch) {
      return attempt;
    }
    target.limit(limit).position(start);
    return attempt == Attempt.ZEROES ? attempt : Attempt.WOULD_BLOCK;
  }

  private Attempt readRuns(long offset, ByteBuffer target) throws IOException {
    int limit = target.limit();
    boolean first = true;
    for (long at = offset; target.hasRemaining(); first = false) {
      Mapping mapping = lookup(at, target.remaining(), false);
      if (mapping == null) {
        return Attempt.WOULD_BLOCK;
      }
      boolean whole = first && mapping.bytes() == target.remaining();
      target.limit(target.position() + (int) mapping.bytes());
      Attempt attempt =
          switch (mapping) {
            case Mapping.Data data ->
                layers.data().tryRead(data.hostOffset(), target)
                    ? Attempt.DONE
                    : Attempt.WOULD_BLOCK;
            case Mapping.Zeros _ -> Attempt.ZEROES;
            case Mapping.Unallocated _ -> readBelow(at, target);
            case Mapping.Compressed compressed ->
                layers
                        .cache()
                        .tryRead(
                            GuestReader.streamOf(compressed),
                            layers.geometry().inCluster(at),
                            target)
                    ? Attempt.DONE
                    : Attempt.WOULD_BLOCK;
          };
      if (whole || attempt == Attempt.WOULD_BLOCK) {
        return attempt;
      }
      if (attempt == Attempt.ZEROES) {
        Zeroes.fill(target, target.remaining());
      }
      target.limit(limit);
      at += mapping.bytes();
    }
    return Attempt.DONE;
  }

  private Attempt readBelow(long offset, ByteBuffer target) throws IOException {
    DiskImage backing = layers.backing();
    if (backing == null || offset >= backing.virtualBytes()) {
      return Attempt.ZEROES;
    }
    return target.remaining() <= backing.virtualBytes() - offset
        ? backing.tryRead(offset, target)
        : Attempt.WOULD_BLOCK;
  }

  /** As {@link DiskImage#tryWrite}, for an image whose header is ready for changes. */
  boolean write(long offset, ByteBuffer source) throws IOException {
    long first = layers.geometry().clusterOf(offset);
    long last = layers.geometry().clusterOf(offset + source.remaining() - 1);
    RangeLock.Hold hold = clusters.tryAcquire(first, last, false);
    if (hold == null) {
      return false;
    }
    try {
      if (lookup(offset, source.remaining(), true) instanceof Mapping.Data data
          && data.sole()
          && data.bytes() == source.remaining()) {
        bitmaps.record(offset, source.remaining());
        layers.data().write(data.hostOffset(), source);
        return true;
      }
      return false;
    } finally {
      clusters.release(hold);
    }
  }

  private @Nullable Mapping lookup(long offset, long bytesMax, boolean toWrite) throws IOException {
    ReentrantLock metadata = layers.metadata();
    for (int tries = 0; !metadata.tryLock(); tries++) {
      if (tries == LOCK_TRIES) {
        return null;
      }
      Thread.onSpinWait();
    }
    try {
      return layers.map().lookupCached(offset, bytesMax, toWrite);
    } finally {
      metadata.unlock();
    }
  }
}
