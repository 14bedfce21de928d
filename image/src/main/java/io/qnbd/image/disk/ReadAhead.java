package io.qnbd.image.disk;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Decompresses what a reader who goes through the disk from front to back will ask for next, on
 * threads that have nothing else to do.
 *
 * <p>A few readers are told apart by where each was last. One that came where it was expected
 * several times in a row has a window in front of it prepared. Where so many reads are under way
 * that they keep all processors busy, nothing is.
 *
 * <p>A cluster is prepared under a shared hold that is there at once or not asked for, like any
 * read of it; nobody waits for this but {@link #close}.
 *
 * <p>Thread-safe by its own mutex, under which nothing waits.
 */
final class ReadAhead {
  private static final int READERS = 4;

  /** Requests of one reader arrive out of order by so much. */
  private static final long SLACK_BYTES = 1 << 20;

  /** Expected so often, a reader is one that goes on. */
  private static final int HITS_MIN = 3;

  private static final long WINDOW_BYTES_MIN = 512 << 10;
  private static final long WINDOW_BYTES_MAX = 2 << 20;
  private static final int PROCESSORS = Runtime.getRuntime().availableProcessors();

  /** Somebody who reads; under the mutex. */
  private static final class Reader {
    private long next = -1;
    private int hits;
    private long usedLast;

    /** Clusters from here up to the other are still to be prepared. */
    private long prepareFrom;

    private long prepareEnd;
  }

  private final Layers layers;
  private final GuestReader guest;
  private final RangeLock clusters;
  private final ReentrantLock mutex = new ReentrantLock();
  private final Condition idle = mutex.newCondition();
  private final Reader[] readers = new Reader[READERS];
  private long clock;
  private int running;
  private boolean closed;

  ReadAhead(Layers layers, GuestReader guest, RangeLock clusters) {
    this.layers = layers;
    this.guest = guest;
    this.clusters = clusters;
    for (int i = 0; i < READERS; i++) {
      readers[i] = new Reader();
    }
  }

  /** A read that met compressed clusters is over. */
  void after(long offset, int bytes, long virtualBytes) {
    if (guest.decompressing() >= PROCESSORS) {
      return;
    }
    mutex.lock();
    try {
      Reader reader = readerAt(offset);
      reader.next = Math.max(reader.next, offset + bytes);
      reader.usedLast = ++clock;
      if (++reader.hits < HITS_MIN || closed) {
        return;
      }
      Geometry geometry = layers.geometry();
      long window = Math.clamp(2L * bytes, WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
      reader.prepareFrom = Math.max(reader.prepareFrom, geometry.clustersFor(reader.next));
      if (geometry.offsetOf(reader.prepareFrom) - reader.next > window / 2) {
        return; // few threads are woken for much rather than many for little
      }
      long end = Math.min(reader.next + window, virtualBytes);
      reader.prepareEnd = Math.max(reader.prepareEnd, geometry.clustersFor(end));
      long wanted = Math.min(PROCESSORS, reader.prepareEnd - reader.prepareFrom);
      for (; running < wanted && Spare.tryRun(() -> prepareAll(reader)); running++) {}
    } finally {
      mutex.unlock();
    }
  }

  /**
   * The reader who was expected here, or the one that was heard of least recently, as a new one.
   */
  private Reader readerAt(long offset) {
    Reader oldest = readers[0];
    for (Reader reader : readers) {
      if (reader.next >= 0 && Math.abs(offset - reader.next) <= SLACK_BYTES) {
        return reader;
      }
      if (reader.usedLast < oldest.usedLast) {
        oldest = reader;
      }
    }
    oldest.next = offset;
    oldest.hits = 0;
    oldest.prepareFrom = 0;
    oldest.prepareEnd = 0;
    return oldest;
  }

  private void prepareAll(Reader reader) {
    try {
      for (long cluster = claim(reader); cluster >= 0; cluster = claim(reader)) {
        prepare(cluster);
      }
    } finally {
      mutex.lock();
      try {
        running--;
        idle.signalAll();
      } finally {
        mutex.unlock();
      }
    }
  }

  private long claim(Reader reader) {
    mutex.lock();
    try {
      boolean more = reader.prepareFrom < reader.prepareEnd && !closed;
      return more && guest.decompressing() < PROCESSORS ? reader.prepareFrom++ : -1;
    } finally {
      mutex.unlock();
    }
  }

  private void prepare(long cluster) {
    RangeLock.Hold hold = clusters.tryAcquire(cluster, cluster, false);
    if (hold == null) {
      return;
    }
    try {
      long offset = layers.geometry().offsetOf(cluster);
      if (guest.lookup(offset, 1) instanceof Mapping.Compressed compressed) {
        guest.prepare(compressed, offset);
      }
    } catch (IOException _) {
      // Whoever asks for it is told.
    } finally {
      clusters.release(hold);
    }
  }

  /** Ends it, and waits until nothing is being prepared. */
  void close() {
    mutex.lock();
    try {
      closed = true;
      while (running > 0) {
        idle.awaitUninterruptibly();
      }
    } finally {
      mutex.unlock();
    }
  }
}
