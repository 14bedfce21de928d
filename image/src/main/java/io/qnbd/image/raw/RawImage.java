package io.qnbd.image.raw;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ImageStats;
import io.qnbd.image.MapExtent;
import io.qnbd.image.MapSink;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.ZeroRangeSink;
import io.qnbd.image.commit.GroupCommit;
import io.qnbd.image.create.Space;
import io.qnbd.image.format.GrowRules;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * A virtual disk whose bytes are those of a file, at the same offsets.
 *
 * <p>The size may be any count of bytes. The file may be shorter than the disk: what it lacks reads
 * as zeroes, and a write extends it.
 *
 * <p>Owns its storage: closing the image closes it. A failed sync latches (see {@link
 * LatchedStorage}).
 */
public final class RawImage implements DiskImage {
  /** The page and block size of nearly every host: smaller holes give nothing back. */
  private static final int HOLE_BYTES = 4096;

  /**
   * Reads of less, and the last piece of one, don't ask for holes: that costs a system call of some
   * 0.3 us and at times a walk over the file's extents, against some 5 us to copy so much.
   */
  private static final int ASK_BYTES_MIN = 64 << 10;

  /** A sparse read goes over so much data before it asks again. */
  private static final int PIECE_BYTES = 256 << 10;

  private static final ExtentState DATA = new ExtentState(false, false, 1);
  private static final ExtentState HOLE = new ExtentState(true, true, 1);

  private final LatchedStorage file;

  /** Changed under {@link #resizing}, when the file is durably long enough for it. */
  private volatile long virtualBytes;

  private final boolean readOnly;
  private final GroupCommit commits;
  private final AtomicBoolean closed = new AtomicBoolean();
  private final ReentrantLock resizing = new ReentrantLock();

  /** A disk of {@code virtualBytes} over {@code storage}, which the image takes over. */
  public RawImage(Storage storage, long virtualBytes, boolean readOnly) {
    if (virtualBytes < 0) {
      throw new AssertionError("virtual size is " + virtualBytes);
    }
    this.file = new LatchedStorage(storage);
    this.virtualBytes = virtualBytes;
    this.readOnly = readOnly;
    this.commits = new GroupCommit("commit " + storage.name(), file::sync);
  }

  /** A disk as long as its file. */
  public static RawImage open(Storage storage, boolean readOnly) throws IOException {
    return new RawImage(storage, storage.length(), readOnly);
  }

  @Override
  public long virtualBytes() {
    return virtualBytes;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public int preferredBytes() {
    return HOLE_BYTES;
  }

  @Override
  public void read(long offset, ByteBuffer target) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes);
    readAndFill(offset, target);
  }

  @Override
  public Attempt tryRead(long offset, ByteBuffer target) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes);
    return file.tryRead(offset, target) ? Attempt.DONE : Attempt.WOULD_BLOCK;
  }

  private void readAndFill(long offset, ByteBuffer target) throws IOException {
    file.read(offset, target);
    while (target.remaining() >= Long.BYTES) {
      target.putLong(0); // past the file's end
    }
    while (target.hasRemaining()) {
      target.put((byte) 0);
    }
  }

  /**
   * Asks the host for holes where there is enough to gain. It is asked for the next data only:
   * where data ends, a file system may find out by a walk to the end of the file, so data is read
   * by the piece, and asked about again after each.
   */
  @Override
  public void read(long offset, ByteBuffer target, ZeroRangeSink zeroes) throws IOException {
    Objects.checkFromIndexSize(offset, target.remaining(), virtualBytes);
    int start = target.position();
    int limit = target.limit();
    long end = offset + target.remaining();
    int holeAt = 0; // of the hole that is not told yet, from here to the position
    while (target.hasRemaining()) {
      int at = target.position() - start;
      boolean ask = target.remaining() >= ASK_BYTES_MIN;
      long hole = ask ? file.nextData(offset + at, end) - (offset + at) : 0;
      if (hole >= HOLE_BYTES) {
        target.position(target.position() + (int) hole);
        continue;
      }
      tell(holeAt, at, zeroes);
      target.limit((int) Math.min(limit, (long) target.position() + PIECE_BYTES));
      readAndFill(offset + at, target);
      target.limit(limit);
      holeAt = target.position() - start;
    }
    tell(holeAt, target.position() - start, zeroes);
  }

  private static void tell(int from, int to, ZeroRangeSink zeroes) {
    if (from < to) {
      zeroes.zeroes(from, to - from);
    }
  }

  @Override
  public void extents(long offset, long bytes, ExtentSink sink) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes);
    long end = offset + bytes;
    boolean more = true;
    for (long at = offset; at < end && more; ) {
      long next = file.nextData(at, end);
      if (next > at) {
        more = sink.extent(next - at, HOLE);
      } else {
        long hole = file.nextHole(at, end);
        // It may have become one since it was asked for data.
        next = hole > at ? hole : Math.min(end, at + HOLE_BYTES);
        more = sink.extent(next - at, DATA);
      }
      at = next;
    }
  }

  @Override
  public void map(long offset, long bytes, MapSink sink) throws IOException {
    AtomicLong at = new AtomicLong(offset);
    extents(
        offset,
        bytes,
        (count, state) ->
            sink.extent(
                count,
                new MapExtent(0, true, state.zero(), !state.zero(), false, at.getAndAdd(count))));
  }

  @Override
  public void write(long offset, ByteBuffer source) throws IOException {
    checkWrite("writing", offset, source.remaining());
    if (source.hasRemaining()) {
      file.write(offset, source);
    }
  }

  @Override
  public boolean tryWrite(long offset, ByteBuffer source) throws IOException {
    if (readOnly || file.failed()) {
      return false;
    }
    write(offset, source);
    return true;
  }

  @Override
  public void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    checkWrite("zeroing", offset, bytes);
    if (bytes == 0) {
      return;
    }
    switch (mode) {
      case MAY_UNMAP -> punch(offset, offset + bytes);
      case KEEP_ALLOCATED -> file.zeroRange(offset, bytes);
    }
  }

  @Override
  public boolean tryFastZeroes(long offset, long bytes, ZeroMode mode) throws IOException {
    checkWrite("zeroing", offset, bytes);
    return file.tryZero(offset, bytes, mode);
  }

  @Override
  public void trim(long offset, long bytes) throws IOException {
    checkWrite("trimming", offset, bytes);
    // Not rounded up by adding, which overflows near the largest offset.
    long first = offset + Math.floorMod(-offset, HOLE_BYTES);
    long end = offset + bytes;
    punch(first, end - end % HOLE_BYTES);
  }

  /** Past the file's end the disk reads as zeroes and takes no space already. */
  private void punch(long first, long end) throws IOException {
    long last = Math.min(end, file.length());
    if (first < last) {
      file.punchHole(first, last - first);
    }
  }

  @Override
  public void prefetch(long offset, long bytes) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes);
    if (bytes != 0) {
      file.prefetch(offset, bytes);
    }
  }

  @Override
  public CompletionStage<@Nullable Void> commit() {
    return readOnly ? CompletableFuture.completedFuture(null) : commits.request();
  }

  @Override
  public void flush() throws IOException {
    try {
      commit().toCompletableFuture().join();
    } catch (CompletionException e) {
      if (e.getCause() instanceof IOException failure) {
        throw failure;
      }
      throw e;
    }
  }

  @Override
  public ImageStats stats() {
    return new ImageStats(
        0, 0, 0, 0, 0, 0, 0, 0, 0, file.syncs(), commits.commits(), commits.requests());
  }

  @Override
  public Snapshots snapshots() throws UnsupportedImageException {
    throw new UnsupportedImageException(file.name() + ": a raw image has no snapshots");
  }

  /** The file is as long as the disk afterwards. A block device has the size that it has. */
  @Override
  public void resize(long bytes) throws IOException {
    if (readOnly) {
      throw new ReadOnlyImageException(
          "growing %s to %d bytes: it is open for reading only".formatted(file.name(), bytes));
    }
    resizing.lock();
    try {
      GrowRules.check(file.name(), virtualBytes, bytes);
      if (bytes == virtualBytes) {
        return;
      }
      // Bytes of the file behind the disk's old end are not the guest's.
      punch(virtualBytes, bytes);
      if (file.length() < bytes) {
        file.setLength(bytes);
      }
      file.sync();
      virtualBytes = bytes;
    } finally {
      resizing.unlock();
    }
  }

  /** Makes the disk and its file shorter; what is behind the new end is lost. */
  public void shrink(long bytes) throws IOException {
    file.setLength(bytes);
    file.sync();
    virtualBytes = bytes;
  }

  /** Takes space on the host for the range, which reads as zeroes. */
  public void preallocate(long offset, long bytes, Preallocation how, ProgressListener progress)
      throws IOException {
    Space.take(file, offset, bytes, how, progress);
  }

  @Override
  public void close() throws IOException {
    if (closed.compareAndSet(false, true)) {
      try (file;
          commits) { // the committer ends before the file is closed
        flush();
      }
    }
  }

  private void checkWrite(String operation, long offset, long bytes) throws IOException {
    if (readOnly) {
      throw new ReadOnlyImageException(
          "%s %d bytes at 0x%x of %s: it is open for reading only"
              .formatted(operation, bytes, offset, file.name()));
    }
    Objects.checkFromIndexSize(offset, bytes, virtualBytes);
  }
}
