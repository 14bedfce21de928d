package io.qnbd.image.io;

import io.qnbd.image.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.LongAdder;
import org.jspecify.annotations.Nullable;

/**
 * A storage that changes nothing any more once a sync has failed.
 *
 * <p>After a failed sync Linux marks the pages clean although they never reached the disk, and the
 * next sync succeeds. So what the page cache holds is no longer known, a second sync proves
 * nothing, and writing on could make durable what refers to lost bytes. Reads go on.
 *
 * <pre>
 *   working --- sync fails, giveUp(), refuse() ---> failed   (left only by opening it again)
 *   working: everything is passed on
 *   failed:  reads and close are passed on; every change and every sync fails
 * </pre>
 *
 * <p>A failed write, a full host above all, does not latch: its caller knows which bytes are in
 * doubt, and calls {@link #giveUp} where it can't live with the doubt.
 *
 * <p>A sync is left out when nothing was changed since the last successful one started.
 */
public final class LatchedStorage implements Storage {
  private final Storage file;
  private final LongAdder writes = new LongAdder();
  private final LongAdder syncs = new LongAdder();

  /**
   * Changes that ended, well or not; each is counted before its caller learns that it ended. So a
   * sum taken before a sync counts only changes that the sync covers, and one that it misses makes
   * the next sum larger.
   */
  private final LongAdder changes = new LongAdder();

  /** Held while syncing. */
  private final Object mutex = new Object();

  /** The sum of {@link #changes} that is durable; under the mutex. */
  private long durableChanges;

  /** Why it has failed, a sentence, written under the mutex; null while the storage works. */
  private volatile @Nullable String failure;

  /** Takes {@code file} over: closing this closes it. */
  public LatchedStorage(Storage file) {
    this.file = file;
  }

  /** Whether it has failed: nothing is changed any more. */
  public boolean failed() {
    return failure != null;
  }

  /** As if a sync had failed, for that reason. */
  public void giveUp(String reason) {
    synchronized (mutex) {
      failure = lost(reason);
    }
  }

  /**
   * Latches because nothing should be changed, although it could be.
   *
   * @param sentence what those who try are told
   * @return whether it worked until now, so that {@link #writeLast} makes sense
   */
  public boolean refuse(String sentence) {
    synchronized (mutex) {
      if (failure != null) {
        return false;
      }
      failure = sentence;
      return true;
    }
  }

  /** Writes past the latch, durably: for a mark that says why nothing else is written. */
  public void writeLast(long at, ByteBuffer mark) throws IOException {
    synchronized (mutex) {
      file.write(at, mark);
      file.sync();
    }
  }

  /** What those are told who try to change something; null while it works. */
  public @Nullable String failure() {
    return failure;
  }

  /** Writes passed on, failed ones included. */
  public long writes() {
    return writes.sum();
  }

  /** Syncs passed on, those left out not counted. */
  public long syncs() {
    return syncs.sum();
  }

  @Override
  public String name() {
    return file.name();
  }

  @Override
  public long length() throws IOException {
    return file.length();
  }

  @Override
  public long nextData(long at, long end) throws IOException {
    return file.nextData(at, end);
  }

  @Override
  public long nextHole(long at, long end) throws IOException {
    return file.nextHole(at, end);
  }

  @Override
  public int read(long at, ByteBuffer target) throws IOException {
    return file.read(at, target);
  }

  @Override
  public boolean tryRead(long at, ByteBuffer target) throws IOException {
    return file.tryRead(at, target);
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    int bytes = source.remaining();
    checkWorking("writing", at, bytes);
    writes.increment();
    try {
      file.write(at, source);
    } finally {
      changes.increment();
    }
  }

  /**
   * One at a time: the kernel tells a lost write to one sync only, so a second one that ran beside
   * the first could succeed before the first has latched.
   */
  @Override
  public void sync() throws IOException {
    synchronized (mutex) {
      String reason = failure;
      if (reason != null) {
        throw latched("syncing " + name(), reason);
      }
      long covered = changes.sum();
      if (covered == durableChanges) {
        return;
      }
      syncs.increment();
      try {
        file.sync();
      } catch (IOException | RuntimeException | Error e) {
        String message = e.getMessage();
        failure = lost(message == null ? e.toString() : message);
        throw e;
      }
      durableChanges = covered;
    }
  }

  @Override
  public void setLength(long bytes) throws IOException {
    String reason = failure;
    if (reason != null) {
      throw latched("setting the length of %s to %d".formatted(name(), bytes), reason);
    }
    try {
      file.setLength(bytes);
    } finally {
      changes.increment();
    }
  }

  @Override
  public void punchHole(long at, long bytes) throws IOException {
    checkWorking("punching a hole of", at, bytes);
    try {
      file.punchHole(at, bytes);
    } finally {
      changes.increment();
    }
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    checkWorking("allocating", at, bytes);
    try {
      file.allocate(at, bytes);
    } finally {
      changes.increment();
    }
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    checkWorking("zeroing", at, bytes);
    try {
      file.zeroRange(at, bytes);
    } finally {
      changes.increment();
    }
  }

  @Override
  public boolean tryZero(long at, long bytes, ZeroMode mode) throws IOException {
    checkWorking("zeroing", at, bytes);
    try {
      return file.tryZero(at, bytes, mode);
    } finally {
      changes.increment();
    }
  }

  @Override
  public void prefetch(long at, long bytes) throws IOException {
    file.prefetch(at, bytes);
  }

  @Override
  public void close() throws IOException {
    file.close();
  }

  private void checkWorking(String operation, long at, long bytes) throws IOException {
    String reason = failure;
    if (reason != null) {
      throw latched("%s %d bytes at 0x%x of %s".formatted(operation, bytes, at, name()), reason);
    }
  }

  private String lost(String reason) {
    return "an earlier write or sync of %s failed (%s): reopen the image".formatted(name(), reason);
  }

  private static IOException latched(String what, String reason) {
    return new IOException(what + ": " + reason);
  }
}
