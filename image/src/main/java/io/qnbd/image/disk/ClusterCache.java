package io.qnbd.image.disk;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Decompressed clusters of one image, so that many small reads of one cost one decompression, also
 * when they come at the same time.
 *
 * <p>Never stale, although streams are found by their place in the file, which is used again:
 *
 * <ul>
 *   <li>A stream is looked for, and put here, only under a hold on the guest cluster whose entry
 *       names it; or it is looked for without one, and what was found is thrown away if any host
 *       cluster has become unused meanwhile, see {@link QuickAccess}.
 *   <li>When an entry loses it, under an exclusive hold, {@link #forget} drops it before the host
 *       cluster can be released, and so long before it is used again.
 * </ul>
 *
 * <p>Thread-safe: the mutex guards the map and who uses an entry, an entry's own lock its contents.
 * The mutex is taken under the metadata lock, too, and nothing is done under it that waits.
 */
final class ClusterCache {
  /** 512 clusters of 64 KiB. */
  static final long IMAGE_BYTES_MAX = 32L << 20;

  /**
   * What the caches of all images take together: an eighth at most of what Java lets direct buffers
   * take, since a reply needs some, too.
   */
  private static final long ALL_BYTES_MAX =
      Math.min(256L << 20, Runtime.getRuntime().maxMemory() / 8);

  /** Copied under the mutex: some microseconds. */
  private static final int TRY_BYTES_MAX = 32 << 10;

  private static final AtomicLong ALL_BYTES = new AtomicLong();

  /** Where a stream is: what an L2 entry says of it. */
  record Stream(long hostOffset, int bytes) {}

  /** Decompresses a cluster into an empty buffer of its size. */
  interface Loader {
    void load(ByteBuffer cluster) throws IOException;
  }

  /** A cluster's place; its bytes belong to the stream while somebody uses it or it is known. */
  private static final class Entry {
    private final ByteBuffer bytes;
    private final ReentrantLock loading = new ReentrantLock();

    /** Written under {@link #loading}. */
    private volatile boolean loaded;

    /** Readers, and whether the map knows it: under the mutex. */
    private int users;

    private boolean known = true;

    Entry(ByteBuffer bytes) {
      this.bytes = bytes;
    }
  }

  private final int clusterBytes;
  private final long bytesMax;
  private final ReentrantLock mutex = new ReentrantLock();
  private final LinkedHashMap<Stream, Entry> entries = new LinkedHashMap<>(64, 0.75f, true);
  private final ArrayDeque<ByteBuffer> free = new ArrayDeque<>();
  private long bytesTaken;

  ClusterCache(int clusterBytes, long bytesMax) {
    this.clusterBytes = clusterBytes;
    this.bytesMax = bytesMax;
  }

  /**
   * Fills {@code target} with the cluster's bytes from {@code from} on, if they are here or on
   * their way.
   *
   * @return false if they are not
   */
  boolean readKnown(Stream stream, int from, ByteBuffer target) {
    Entry entry;
    mutex.lock();
    try {
      entry = entries.get(stream);
      if (entry == null) {
        return false;
      }
      entry.users++;
    } finally {
      mutex.unlock();
    }
    try {
      return loaded(entry) && copied(entry, from, target);
    } finally {
      letGo(entry);
    }
  }

  /** The same for a thread that must not wait: only what is here, a few KiB at most. */
  boolean tryRead(Stream stream, int from, ByteBuffer target) {
    if (target.remaining() > TRY_BYTES_MAX || !mutex.tryLock()) {
      return false;
    }
    try {
      Entry entry = entries.get(stream);
      return entry != null && entry.loaded && copied(entry, from, target);
    } finally {
      mutex.unlock();
    }
  }

  /**
   * Fills {@code target} with the cluster's bytes from {@code from} on, decompressing it once for
   * all that ask.
   *
   * @return false if there is no place for it: all are being read from
   */
  boolean read(Stream stream, int from, ByteBuffer target, Loader loader) throws IOException {
    Entry entry = use(stream);
    if (entry == null) {
      return false;
    }
    try {
      load(entry, loader);
      return copied(entry, from, target);
    } finally {
      letGo(entry);
    }
  }

  /** Decompresses a cluster if it is not here and there is a place for it. */
  void prepare(Stream stream, Loader loader) throws IOException {
    Entry entry = use(stream);
    if (entry != null) {
      try {
        load(entry, loader);
      } finally {
        letGo(entry);
      }
    }
  }

  /** Whether the bytes are there, once nobody is at it any more. */
  private static boolean loaded(Entry entry) {
    if (entry.loaded) {
      return true;
    }
    entry.loading.lock();
    try {
      return entry.loaded;
    } finally {
      entry.loading.unlock();
    }
  }

  private static boolean copied(Entry entry, int from, ByteBuffer target) {
    target.put(entry.bytes.slice(from, target.remaining()));
    return true;
  }

  private static void load(Entry entry, Loader loader) throws IOException {
    if (entry.loaded) {
      return;
    }
    entry.loading.lock();
    try {
      if (!entry.loaded) {
        loader.load(entry.bytes.duplicate().clear());
        entry.loaded = true;
      }
    } finally {
      entry.loading.unlock();
    }
  }

  private @Nullable Entry use(Stream stream) {
    mutex.lock();
    try {
      Entry entry = entries.get(stream);
      if (entry == null) {
        ByteBuffer place = place();
        if (place == null) {
          return null;
        }
        entry = new Entry(place);
        entries.put(stream, entry);
      }
      entry.users++;
      return entry;
    } finally {
      mutex.unlock();
    }
  }

  /** A buffer that is free, or new, or that of the cluster that was used least recently. */
  private @Nullable ByteBuffer place() {
    ByteBuffer place = free.poll();
    if (place != null) {
      return place;
    }
    if (bytesTaken + clusterBytes <= bytesMax) {
      if (ALL_BYTES.addAndGet(clusterBytes) <= ALL_BYTES_MAX) {
        bytesTaken += clusterBytes;
        return ByteBuffer.allocateDirect(clusterBytes);
      }
      ALL_BYTES.addAndGet(-clusterBytes);
    }
    for (Iterator<Entry> eldest = entries.values().iterator(); eldest.hasNext(); ) {
      Entry entry = eldest.next();
      if (entry.users == 0) {
        eldest.remove();
        return entry.bytes;
      }
    }
    return null;
  }

  private void letGo(Entry entry) {
    mutex.lock();
    try {
      entry.users--;
      if (entry.users == 0 && !entry.known) {
        free.add(entry.bytes);
      }
    } finally {
      mutex.unlock();
    }
  }

  /** No entry names the stream any more. */
  void forget(long hostOffset, int bytes) {
    mutex.lock();
    try {
      Entry entry = entries.remove(new Stream(hostOffset, bytes));
      if (entry != null) {
        entry.known = false;
        if (entry.users == 0) {
          free.add(entry.bytes);
        }
      }
    } finally {
      mutex.unlock();
    }
  }

  /** Gives all memory back. Nobody reads any more. */
  void close() {
    mutex.lock();
    try {
      entries.clear();
      free.clear();
      ALL_BYTES.addAndGet(-bytesTaken);
      bytesTaken = 0;
    } finally {
      mutex.unlock();
    }
  }
}
