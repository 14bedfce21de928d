package io.qnbd.image.io;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * A file that keeps the order in which it was changed and synced.
 *
 * <p>Thread-safe.
 */
public final class RecordingStorage implements Storage {
  /** Something that was done to the file; a sync has no place. */
  public record Entry(Operation operation, long at, long bytes) {
    /** Whether it wrote into {@code [from, to)}. */
    public boolean writesInto(long from, long to) {
      return operation == Operation.WRITE && at < to && at + bytes > from;
    }
  }

  private final Storage file;
  private final List<Entry> entries = new ArrayList<>();

  public RecordingStorage(Storage file) {
    this.file = file;
  }

  /** What was done so far, in order of its beginning. */
  public synchronized List<Entry> entries() {
    return List.copyOf(entries);
  }

  private synchronized void add(Operation operation, long at, long bytes) {
    entries.add(new Entry(operation, at, bytes));
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    add(Operation.WRITE, at, source.remaining());
    file.write(at, source);
  }

  @Override
  public void sync() throws IOException {
    file.sync();
    add(Operation.SYNC, 0, 0);
  }

  @Override
  public void setLength(long bytes) throws IOException {
    add(Operation.SET_LENGTH, bytes, 0);
    file.setLength(bytes);
  }

  @Override
  public void punchHole(long at, long bytes) throws IOException {
    add(Operation.PUNCH_HOLE, at, bytes);
    file.punchHole(at, bytes);
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    add(Operation.ALLOCATE, at, bytes);
    file.allocate(at, bytes);
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    add(Operation.ZERO_RANGE, at, bytes);
    file.zeroRange(at, bytes);
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
    return file.tryRead(at, target);
  }

  @Override
  public int read(long at, ByteBuffer target) throws IOException {
    return file.read(at, target);
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
