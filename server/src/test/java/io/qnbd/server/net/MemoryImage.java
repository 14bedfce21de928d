package io.qnbd.server.net;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ImageStats;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.ZeroRangeSink;
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
  /** The unit in which the disk keeps what it is made of. */
  static final int BLOCK_BYTES = 4096;

  private static final ExtentState NOWHERE = new ExtentState(true, true, 0);
  private static final ExtentState HOLE = new ExtentState(true, true, 1);
  private static final ExtentState ALLOCATED_ZEROES = new ExtentState(false, true, 1);
  private static final ExtentState DATA = new ExtentState(false, false, 1);

  private byte[] disk;
  private ExtentState[] blocks;
  private final boolean readOnly;
  private boolean held;
  private boolean commitsHeld;
  private @Nullable IOException ioFailure;
  private @Nullable RuntimeException bug;
  private final List<CompletableFuture<@Nullable Void>> heldCommits = new ArrayList<>();
  private long firstBadByte = Long.MAX_VALUE;
  private int callsInProgress;
  private int writes;
  private int commits;
  private int prefetches;
  private int quickReads;
  private int quickWrites;
  private @Nullable ZeroMode lastZeroMode;

  MemoryImage(int bytes, boolean readOnly) {
    this.disk = new byte[bytes];
    this.blocks = new ExtentState[(bytes + BLOCK_BYTES - 1) / BLOCK_BYTES];
    Arrays.fill(blocks, NOWHERE);
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

  /** Lets every read fail that goes to this byte or beyond. */
  synchronized void failReadsFrom(long offset) {
    firstBadByte = offset;
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
    beginRead(offset, target.remaining());
    target.put(disk, (int) offset, target.remaining());
  }

  /** At once, unless something was arranged for the next call. */
  @Override
  public synchronized Attempt tryRead(long offset, ByteBuffer target) throws IOException {
    if (held || ioFailure != null || offset + target.remaining() > firstBadByte) {
      return Attempt.WOULD_BLOCK;
    }
    if (bug != null) {
      throw bug;
    }
    boolean[] data = new boolean[1];
    forEachRun(
        offset,
        target.remaining(),
        (_, state) -> {
          data[0] |= !state.zero();
          return true;
        });
    if (!data[0]) {
      return Attempt.ZEROES;
    }
    target.put(disk, (int) offset, target.remaining());
    quickReads++;
    return Attempt.DONE;
  }

  /** Where data is already; fails as a full host would. */
  @Override
  public synchronized boolean tryWrite(long offset, ByteBuffer source) throws IOException {
    if (held || readOnly) {
      return false;
    }
    write(offset, source);
    quickWrites++;
    return true;
  }

  synchronized int quickReads() {
    return quickReads;
  }

  synchronized int quickWrites() {
    return quickWrites;
  }

  @Override
  public synchronized void read(long offset, ByteBuffer target, ZeroRangeSink zeroes)
      throws IOException {
    beginRead(offset, target.remaining());
    int start = target.position();
    forEachRun(
        offset,
        target.remaining(),
        (bytes, state) -> {
          if (state.zero()) {
            zeroes.zeroes(target.position() - start, (int) bytes);
            target.position(target.position() + (int) bytes);
          } else {
            target.put(disk, (int) offset + target.position() - start, (int) bytes);
          }
          return true;
        });
  }

  @Override
  public synchronized void extents(long offset, long bytes, ExtentSink sink) throws IOException {
    begin(offset, bytes);
    forEachRun(offset, bytes, sink);
  }

  /** Blocks in a row in the same state are one run. */
  private void forEachRun(long offset, long bytes, ExtentSink sink) {
    long end = offset + bytes;
    for (long at = offset; at < end; ) {
      ExtentState state = blocks[(int) (at / BLOCK_BYTES)];
      long to = at;
      while (to < end && blocks[(int) (to / BLOCK_BYTES)].equals(state)) {
        to = Math.min(end, (to / BLOCK_BYTES + 1) * BLOCK_BYTES);
      }
      if (!sink.extent(to - at, state)) {
        return;
      }
      at = to;
    }
  }

  /** What a write touches becomes data. */
  private void setData(long offset, long bytes) {
    if (bytes > 0) {
      int first = (int) (offset / BLOCK_BYTES);
      Arrays.fill(blocks, first, (int) ((offset + bytes - 1) / BLOCK_BYTES) + 1, DATA);
    }
  }

  /** Of what is zeroed, whole blocks change their state. */
  private void setZero(long offset, long bytes, ExtentState state) {
    long first = (offset + BLOCK_BYTES - 1) / BLOCK_BYTES;
    long end = offset + bytes == disk.length ? blocks.length : (offset + bytes) / BLOCK_BYTES;
    if (first < end) {
      Arrays.fill(blocks, (int) first, (int) end, state);
    }
  }

  @Override
  public synchronized void write(long offset, ByteBuffer source) throws IOException {
    beginChange(offset, source.remaining());
    setData(offset, source.remaining());
    source.get(disk, (int) offset, source.remaining());
    writes++;
  }

  @Override
  public synchronized void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    beginChange(offset, bytes);
    Arrays.fill(disk, (int) offset, (int) (offset + bytes), (byte) 0);
    setZero(offset, bytes, mode == ZeroMode.MAY_UNMAP ? HOLE : ALLOCATED_ZEROES);
    lastZeroMode = mode;
  }

  /** Fast where it takes whole blocks only. */
  @Override
  public synchronized boolean tryFastZeroes(long offset, long bytes, ZeroMode mode)
      throws IOException {
    boolean whole =
        offset % BLOCK_BYTES == 0
            && ((offset + bytes) % BLOCK_BYTES == 0 || offset + bytes == disk.length);
    if (!whole) {
      beginChange(offset, bytes);
      return false;
    }
    writeZeroes(offset, bytes, mode);
    return true;
  }

  @Override
  public synchronized void trim(long offset, long bytes) throws IOException {
    beginChange(offset, bytes);
    Arrays.fill(disk, (int) offset, (int) (offset + bytes), (byte) 0);
    setZero(offset, bytes, HOLE);
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
    int before = blocks.length;
    blocks = Arrays.copyOf(blocks, (disk.length + BLOCK_BYTES - 1) / BLOCK_BYTES);
    Arrays.fill(blocks, before, blocks.length, NOWHERE);
  }

  @Override
  public void close() {}

  private void beginChange(long offset, long bytes) throws IOException {
    if (readOnly) {
      throw new ReadOnlyImageException("writing to memory: opened for reading");
    }
    begin(offset, bytes);
  }

  private void beginRead(long offset, int bytes) throws IOException {
    begin(offset, bytes);
    if (offset + bytes > firstBadByte) {
      throw new IOException("reading memory: bad from " + firstBadByte);
    }
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
