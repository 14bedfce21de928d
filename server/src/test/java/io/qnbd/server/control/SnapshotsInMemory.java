package io.qnbd.server.control;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentSink;
import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.image.ImageStats;
import io.qnbd.image.Snapshots;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.ZeroRangeSink;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;

/**
 * A disk without bytes whose snapshots are a list, and that can be held up.
 *
 * <p>Thread-safe: guarded by the object's monitor, but for the latches.
 */
final class SnapshotsInMemory implements DiskImage, Snapshots {
  static final long DISK_BYTES = 1 << 20;

  private final List<Snapshot> snapshots = new ArrayList<>();
  private int nextId = 1;
  private long diskBytes = DISK_BYTES;
  private CountDownLatch gate = new CountDownLatch(0);
  private CountDownLatch arrived = new CountDownLatch(0);

  /** Lets no {@link #create} return until {@link #release}. */
  synchronized void hold() {
    gate = new CountDownLatch(1);
    arrived = new CountDownLatch(1);
  }

  void awaitHeld() throws InterruptedException {
    latchOfArrivals().await();
  }

  synchronized void release() {
    gate.countDown();
  }

  private synchronized CountDownLatch latchOfArrivals() {
    return arrived;
  }

  private synchronized CountDownLatch latchOfGate() {
    return gate;
  }

  @Override
  public synchronized List<Snapshot> list() {
    return List.copyOf(snapshots);
  }

  @Override
  public void create(String name) throws IOException {
    latchOfArrivals().countDown();
    try {
      latchOfGate().await();
    } catch (InterruptedException interrupted) {
      throw new AssertionError("a control thread was interrupted", interrupted);
    }
    synchronized (this) {
      if (snapshots.stream().anyMatch(snapshot -> snapshot.name().equals(name))) {
        throw new IOException("there is a snapshot named " + name + " already");
      }
      String id = Integer.toString(nextId++);
      snapshots.add(
          new Snapshot(id, name, Instant.ofEpochSecond(1000, 7), DISK_BYTES, 5, 61_000_000_002L));
    }
  }

  @Override
  public synchronized void delete(String snapshot) throws IOException {
    if (!snapshots.removeIf(each -> each.name().equals(snapshot))) {
      throw new IOException("has no snapshot named " + snapshot);
    }
  }

  @Override
  public synchronized void rename(String snapshot, String name) {
    snapshots.replaceAll(each ->
        each.name().equals(snapshot)
            ? new Snapshot(
                each.id(),
                name,
                each.taken(),
                each.virtualBytes(),
                each.vmStateBytes(),
                each.vmClockNanos())
            : each);
  }

  @Override
  public Snapshots snapshots() {
    return this;
  }

  @Override
  public synchronized long virtualBytes() {
    return diskBytes;
  }

  @Override
  public boolean readOnly() {
    return false;
  }

  @Override
  public int preferredBytes() {
    return 65536;
  }

  @Override
  public void read(long offset, ByteBuffer target) {
    throw new AssertionError("no control command reads");
  }

  @Override
  public void read(long offset, ByteBuffer target, ZeroRangeSink zeroes) {
    throw new AssertionError("no control command reads");
  }

  @Override
  public void extents(long offset, long bytes, ExtentSink sink) {
    throw new AssertionError("no control command asks for extents");
  }

  @Override
  public void write(long offset, ByteBuffer source) {
    throw new AssertionError("no control command writes");
  }

  @Override
  public void writeZeroes(long offset, long bytes, ZeroMode mode) {
    throw new AssertionError("no control command zeroes");
  }

  @Override
  public boolean tryFastZeroes(long offset, long bytes, ZeroMode mode) {
    throw new AssertionError("no control command zeroes");
  }

  @Override
  public void trim(long offset, long bytes) {
    throw new AssertionError("no control command trims");
  }

  @Override
  public void prefetch(long offset, long bytes) {
    throw new AssertionError("no control command prefetches");
  }

  @Override
  public CompletionStage<@Nullable Void> commit() {
    return CompletableFuture.completedFuture(null);
  }

  @Override
  public void flush() {}

  @Override
  public ImageStats stats() {
    return new ImageStats(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 3);
  }

  @Override
  public synchronized void resize(long bytes) {
    diskBytes = bytes;
  }

  @Override
  public void close() {}
}
