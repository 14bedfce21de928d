package io.qnbd.image.mapping;

import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.TableIo;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The cache of L2 slices: pieces of L2 tables, at most a page each, by their host offset.
 *
 * <p>A slice is one of
 *
 * <pre>
 *   CLEAN      as in the file; may be evicted
 *     | markDirty()          ^ committed()
 *     v                      |
 *   DIRTY ---- takeDirty() --> BEING WRITTEN, which a further change makes dirty again beside it
 * </pre>
 *
 * Only clean slices are evicted, so the cache outgrows its limit while more is dirty; whoever
 * changes entries asks {@link #crowded} and waits for a commit.
 *
 * <p>Owner: the image's metadata lock.
 */
final class SliceCache {
  /** A slice; the words of its entries in the machine's own byte order. */
  static final class Slice {
    final long hostOffset;
    final long[] entries;
    private boolean dirty;
    private boolean beingWritten;

    /** Whether {@link SliceCheck} has let it pass. */
    boolean checked;

    Slice(long hostOffset, int words) {
      this.hostOffset = hostOffset;
      this.entries = new long[words];
    }
  }

  private final Storage file;
  private final int sliceWords;
  private final int slicesMax;
  private final LinkedHashMap<Long, Slice> slices = new LinkedHashMap<>(64, 0.75f, true);
  private final List<Slice> dirty = new ArrayList<>();

  SliceCache(Storage file, int sliceWords, long bytesMax) {
    this.file = file;
    this.sliceWords = sliceWords;
    long fitting = bytesMax / ((long) sliceWords * Long.BYTES);
    this.slicesMax = Math.clamp(fitting, 16, 1 << 24);
  }

  /** The slice at {@code hostOffset}, read from the file if need be. */
  Slice get(long hostOffset) throws IOException {
    Slice cached = slices.get(hostOffset);
    if (cached != null) {
      return cached;
    }
    Slice slice = new Slice(hostOffset, sliceWords);
    TableIo.read(file, hostOffset, slice.entries, "L2 table");
    evictDownTo(slicesMax - 1);
    slices.put(hostOffset, slice);
    return slice;
  }

  /** The slice at {@code hostOffset} if it need not be read. */
  @Nullable Slice cached(long hostOffset) {
    return slices.get(hostOffset);
  }

  private void evictDownTo(int count) {
    if (slices.size() <= count || dirty.size() >= slices.size()) {
      return;
    }
    Iterator<Slice> eldest = slices.values().iterator();
    while (slices.size() > count && eldest.hasNext()) {
      Slice slice = eldest.next();
      if (!slice.dirty && !slice.beingWritten) {
        eldest.remove();
      }
    }
  }

  void markDirty(Slice slice) {
    if (!slice.dirty) {
      slice.dirty = true;
      dirty.add(slice);
    }
  }

  /** Whether half of the cache waits for a commit. */
  boolean crowded() {
    return dirty.size() > slicesMax / 2;
  }

  int dirtyCount() {
    return dirty.size();
  }

  /** The dirty slices, which now count as being written; their entries must be copied at once. */
  List<Slice> takeDirty() {
    List<Slice> taken = new ArrayList<>(dirty);
    dirty.clear();
    for (Slice slice : taken) {
      slice.dirty = false;
      slice.beingWritten = true;
    }
    return taken;
  }

  /** The slices taken were written, or, if not {@code durable}, must be written again. */
  void written(List<Slice> taken, boolean durable) {
    for (Slice slice : taken) {
      slice.beingWritten = false;
      if (!durable) {
        markDirty(slice);
      }
    }
  }

  /** Forgets the slices of a table whose cluster gets another use. */
  void forget(long tableOffset, int tableBytes) {
    for (long at = tableOffset; at < tableOffset + tableBytes; at += sliceWords * 8L) {
      slices.remove(at);
    }
  }
}
