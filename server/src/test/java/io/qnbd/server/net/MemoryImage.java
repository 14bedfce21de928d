package io.qnbd.server.net;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageStats;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.jspecify.annotations.Nullable;

/**
 * A disk in memory that can be held up and made to fail.
 *
 * <p>Thread-safe: everything is guarded by the object's monitor.
 */
final class MemoryImage implements DiskImage {
  private byte[] disk;
  private final boolean readOnly;
  private boolean held;
  private boolean commitsHeld;
  private @Nullable IOException ioFailure;
  private @Nullable RuntimeException bug;
  private final List<CompletableFuture<@Nullable Void>> heldCommits = new ArrayList<>();
  private int callsInProgress;
  private int writes;
  private int commits;
  private int prefetches;
  private @Nullable ZeroMode lastZeroMode;

  MemoryImage(int bytes, boolean readOnly) {
    this.disk = new byte[bytes];
    this.readOnly = readOnly;
  }

  /** Lets no call return until {@link #release}. */
  synchronized void hold() {
    held = true;
  }

  synchronized void release() {
    held = false;
    notifyAll();
  }

  synchronized void holdCommits() {
    commitsHeld = true;
  }

  void releaseCommits() {
    List<CompletableFuture<@Nullable Void>> ready;
    synchronized (this) {
      commitsHeld = false;
      ready = List.copyOf(heldCommits);
      heldCommits.clear();
    }
    ready.forEach(commit -> commit.complete(null));
  }

  synchronized void failWith(@Nullable IOException failure) {
    ioFailure = failure;
  }

  synchronized void breakWith(@Nullable RuntimeException failure) {
    bug = failure;
  }

  synchronized int callsInProgress() {
    return callsInProgress;
  }

  synchronized int writes() {
    return writes;
  }

  synchronized int commits() {
    return commits;
  }

  synchronized int prefetches() {
    return prefetches;
  }

  synchronized @Nullable ZeroMode lastZeroMode() {
    return lastZeroMode;
  }

  synchronized byte byteAt(int offset) {
    return disk[offset];
  }

  @Override
  public synchronized long virtualBytes() {
    return disk.length;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public int preferredBytes() {
    return 65536;
  }

  @Override
  public synchronized void read(long offset, ByteBuffer target) throws IOException {
    begin(offset, target.remaining());
    target.put(disk, (int) offset, target.remaining());
  }

  @Override
  public synchronized void write(long offset, ByteBuffer source) throws IOException {
    beginChange(offset, source.remaining());
    source.get(disk, (int) offset, source.remaining());
    writes++;
  }

  @Override
  public synchronized void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    beginChange(offset, bytes);
    Arrays.fill(disk, (int) offset, (int) (offset + bytes), (byte) 0);
    lastZeroMode = mode;
  }

  @Override
  public synchronized void trim(long offset, long bytes) throws IOException {
    beginChange(offset, bytes);
    Arrays.fill(disk, (int) offset, (int) (offset + bytes), (byte) 0);
  }

  @Override
  public synchronized void prefetch(long offset, long bytes) throws IOException {
    begin(offset, bytes);
    prefetches++;
  }

  @Override
  public synchronized CompletionStage<@Nullable Void> commit() {
    commits++;
    IOException failure = ioFailure;
    if (failure != null) {
      return CompletableFuture.failedFuture(failure);
    }
    if (!commitsHeld) {
      return CompletableFuture.completedFuture(null);
    }
    CompletableFuture<@Nullable Void> commit = new CompletableFuture<>();
    heldCommits.add(commit);
    return commit;
  }

  @Override
  public void flush() {
    commit().toCompletableFuture().join();
  }

  @Override
  public ImageStats stats() {
    return new ImageStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  }

  @Override
  public Snapshots snapshots() throws UnsupportedImageException {
    throw new UnsupportedImageException("memory has no snapshots");
  }

  @Override
  public synchronized void resize(long bytes) throws IOException {
    beginChange(0, 0);
    disk = Arrays.copyOf(disk, Math.toIntExact(bytes));
  }

  @Override
  public void close() {}

  private void beginChange(long offset, long bytes) throws IOException {
    if (readOnly) {
      throw new ReadOnlyImageException("writing to memory: opened for reading");
    }
    begin(offset, bytes);
  }

  private void begin(long offset, long bytes) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, disk.length);
    callsInProgress++;
    try {
      while (held) {
        wait();
      }
    } catch (InterruptedException interrupted) {
      throw new AssertionError("a worker was interrupted", interrupted);
    } finally {
      callsInProgress--;
    }
    if (ioFailure != null) {
      throw ioFailure;
    }
    if (bug != null) {
      throw bug;
    }
  }
}
