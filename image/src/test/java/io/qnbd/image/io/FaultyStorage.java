package io.qnbd.image.io;

import io.qnbd.image.NoSpaceException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;

/**
 * A file whose operations fail when told to. A failing operation has no effect, or half of it where
 * {@link Failure#HALF_WRITTEN} says so; a failing sync makes nothing durable.
 *
 * <p>Thread-safe; the file below sees the operations outside {@link #lock}.
 */
public final class FaultyStorage implements Storage {
  /** How an operation fails. */
  public enum Failure {
    /** An {@link IOException} and nothing done. */
    IO_ERROR,
    /**
     * A write does the first half of its work, in whole sectors, before its {@link IOException}.
     */
    HALF_WRITTEN,
    /** A {@link NoSpaceException} and nothing done. */
    NO_SPACE
  }

  private static final int SECTOR_BYTES = 512;

  private final Storage file;
  private final Object lock = new Object();
  private final Map<Operation, Long> counts = new EnumMap<>(Operation.class);
  private Set<Operation> failing = EnumSet.noneOf(Operation.class);
  private Failure failure = Failure.IO_ERROR;
  private long countdown;
  private boolean once;
  private long failures;

  public FaultyStorage(Storage file) {
    this.file = file;
  }

  /** Makes one operation fail: of those listed, the {@code nth} from now on, counted from 1. */
  public void failOnce(Set<Operation> operations, long nth, Failure how) {
    arm(operations, nth, how, true);
  }

  /** Makes operations fail until {@link #heal}: of those listed, the {@code nth} and all later. */
  public void failFrom(Set<Operation> operations, long nth, Failure how) {
    arm(operations, nth, how, false);
  }

  /** Lets everything succeed again. */
  public void heal() {
    synchronized (lock) {
      failing = EnumSet.noneOf(Operation.class);
    }
  }

  /** How many operations were made to fail. */
  public long failures() {
    synchronized (lock) {
      return failures;
    }
  }

  /** How many of these operations were asked for. */
  public long count(Set<Operation> operations) {
    synchronized (lock) {
      long sum = 0;
      for (Operation operation : operations) {
        sum += counts.getOrDefault(operation, 0L);
      }
      return sum;
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
  public boolean tryRead(long at, ByteBuffer target) throws IOException {
    pass(Operation.READ, at, target.remaining());
    return file.tryRead(at, target);
  }

  @Override
  public int read(long at, ByteBuffer target) throws IOException {
    pass(Operation.READ, at, target.remaining());
    return file.read(at, target);
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    try {
      pass(Operation.WRITE, at, source.remaining());
    } catch (IOException e) {
      long half = (at + source.remaining() / 2) / SECTOR_BYTES * SECTOR_BYTES - at;
      if (halves() && half > 0) {
        file.write(at, source.slice(source.position(), (int) half));
      }
      throw e;
    }
    file.write(at, source);
  }

  @Override
  public void sync() throws IOException {
    pass(Operation.SYNC, 0, 0);
    file.sync();
  }

  @Override
  public void setLength(long bytes) throws IOException {
    pass(Operation.SET_LENGTH, bytes, 0);
    file.setLength(bytes);
  }

  @Override
  public void punchHole(long at, long bytes) throws IOException {
    pass(Operation.PUNCH_HOLE, at, bytes);
    file.punchHole(at, bytes);
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    pass(Operation.ALLOCATE, at, bytes);
    file.allocate(at, bytes);
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    pass(Operation.ZERO_RANGE, at, bytes);
    file.zeroRange(at, bytes);
  }

  @Override
  public void prefetch(long at, long bytes) throws IOException {
    pass(Operation.PREFETCH, at, bytes);
    file.prefetch(at, bytes);
  }

  @Override
  public void close() throws IOException {
    file.close();
  }

  private void arm(Set<Operation> operations, long nth, Failure how, boolean onlyOnce) {
    synchronized (lock) {
      failing = EnumSet.copyOf(operations);
      countdown = nth;
      failure = how;
      once = onlyOnce;
    }
  }

  private boolean halves() {
    synchronized (lock) {
      return failure == Failure.HALF_WRITTEN;
    }
  }

  private void pass(Operation operation, long at, long bytes) throws IOException {
    Failure how;
    synchronized (lock) {
      counts.merge(operation, 1L, Long::sum);
      if (!failing.contains(operation) || --countdown > 0) {
        return;
      }
      if (once) {
        failing = EnumSet.noneOf(Operation.class);
      }
      failures++;
      how = failure;
    }
    String message =
        "injected: " + operation + " of " + bytes + " bytes at " + at + " of " + file.name();
    throw how == Failure.NO_SPACE ? new NoSpaceException(message) : new IOException(message);
  }
}
