package io.qnbd.image.io;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * A file that holds up one write, or one quick read, until it is let through. What it is to do is
 * not done before that.
 *
 * <p>Thread-safe.
 */
public final class GatedStorage implements Storage {
  private static final long SECONDS_MAX = 30;

  /** Tells the write to be held up from others. */
  @FunctionalInterface
  public interface Writes {
    boolean match(long at, int bytes);
  }

  /** One write that is held up: it has arrived, then it may pass. */
  private record Gate(Writes writes, boolean tries, CountDownLatch arrived, CountDownLatch open) {
    Gate(Writes writes, boolean tries) {
      this(writes, tries, new CountDownLatch(1), new CountDownLatch(1));
    }
  }

  private final Storage file;
  private volatile @Nullable Gate gate;

  public GatedStorage(Storage file) {
    this.file = file;
  }

  /** Holds up the next of these writes. */
  public void close(Writes writes) {
    gate = new Gate(writes, false);
  }

  /** Holds up the next {@link #tryRead}. */
  public void closeToTries() {
    gate = new Gate((_, _) -> true, true);
  }

  /** Waits until a write stands before the gate. */
  public void awaitArrival() throws InterruptedException {
    Gate closed = gate;
    if (closed == null || !closed.arrived().await(SECONDS_MAX, TimeUnit.SECONDS)) {
      throw new AssertionError("no write came to the gate");
    }
  }

  /** Lets the write through. */
  public void open() {
    Gate closed = gate;
    if (closed != null) {
      closed.open().countDown();
    }
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    pass(at, source.remaining(), false);
    file.write(at, source);
  }

  @Override
  public boolean tryRead(long at, ByteBuffer target) throws IOException {
    pass(at, target.remaining(), true);
    return file.tryRead(at, target);
  }

  private void pass(long at, int bytes, boolean tries) throws IOException {
    Gate closed = gate;
    if (closed != null
        && closed.tries() == tries
        && closed.arrived().getCount() > 0
        && closed.writes().match(at, bytes)) {
      closed.arrived().countDown();
      await(closed.open());
    }
  }

  private static void await(CountDownLatch opened) throws IOException {
    try {
      if (!opened.await(SECONDS_MAX, TimeUnit.SECONDS)) {
        throw new IOException("the gate stayed closed");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted at the gate", e);
    }
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
  public int read(long at, ByteBuffer target) throws IOException {
    return file.read(at, target);
  }

  @Override
  public void sync() throws IOException {
    file.sync();
  }

  @Override
  public void setLength(long bytes) throws IOException {
    file.setLength(bytes);
  }

  @Override
  public void punchHole(long at, long bytes) throws IOException {
    file.punchHole(at, bytes);
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    file.allocate(at, bytes);
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    file.zeroRange(at, bytes);
  }

  @Override
  public void prefetch(long at, long bytes) throws IOException {
    file.prefetch(at, bytes);
  }

  @Override
  public void close() throws IOException {
    file.close();
  }
}
