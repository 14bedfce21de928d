package io.qnbd.image.io;

import io.qnbd.image.NoSpaceException;
import io.qnbd.image.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.jspecify.annotations.Nullable;

/**
 * A file in memory. Holes take no space, so a file of many GiB is fine while little of it is
 * written.
 *
 * <p>A copy shares the chunks of its original until one of the two writes to them, so copying costs
 * a map and no bytes. Closing counts and nothing else: the same storage can be opened again.
 *
 * <p>Thread-safe: {@link #lock} guards everything but the counters.
 */
public final class MemoryStorage implements Storage {
  /** The unit in which space is taken and given back: a usual file system's block. */
  public static final int CHUNK_BYTES = 4096;

  private static final int SECTOR_BYTES = 512;

  /** A chunk may be written in place by the storage whose present token it carries. */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Chunk(byte[] bytes, Object owner) {}

  /** Space that was taken and not written yet; no storage carries its token. */
  private static final Chunk ZEROES = new Chunk(new byte[CHUNK_BYTES], new Object());

  private final String name;
  private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();
  private final Map<Long, Chunk> chunks;
  private final ConcurrentMap<Operation, Long> counts = new ConcurrentHashMap<>();
  private Object owner = new Object();
  private long length;
  private long capacityBytes = Long.MAX_VALUE;

  public MemoryStorage() {
    this("memory");
  }

  public MemoryStorage(String name) {
    this(name, new HashMap<>());
  }

  private MemoryStorage(String name, Map<Long, Chunk> chunks) {
    this.name = name;
    this.chunks = chunks;
  }

  /** A file with these contents. */
  public static MemoryStorage of(byte[] contents) {
    MemoryStorage storage = new MemoryStorage();
    storage.put(0, contents, 0, contents.length);
    return storage;
  }

  /** A file with the contents of a real one; its zeroes take no space. */
  public static MemoryStorage of(Path path) throws IOException {
    MemoryStorage storage = new MemoryStorage(path.getFileName().toString());
    try (FileChannel channel = FileChannel.open(path)) {
      ByteBuffer buffer = ByteBuffer.allocate(CHUNK_BYTES);
      byte[] zeroes = new byte[CHUNK_BYTES];
      for (long at = 0; channel.read(buffer.clear(), at) > 0; at += buffer.position()) {
        if (!Arrays.equals(buffer.array(), 0, buffer.position(), zeroes, 0, buffer.position())) {
          storage.put(at, buffer.array(), 0, buffer.position());
        }
      }
      storage.setLength(channel.size());
    }
    return storage;
  }

  /** A file of its own with the same contents, without the limit on its capacity. */
  public MemoryStorage copy() {
    lock.writeLock().lock();
    try {
      MemoryStorage copy = new MemoryStorage(name, new HashMap<>(chunks));
      copy.length = length;
      // No chunk carries this token, so both sides copy a chunk before they first write to it.
      owner = new Object();
      return copy;
    } finally {
      lock.writeLock().unlock();
    }
  }

  /** Writes the contents to a real file, zeroes as holes. */
  public void writeTo(Path path) throws IOException {
    lock.readLock().lock();
    try (FileChannel channel =
        FileChannel.open(
            path,
            StandardOpenOption.CREATE,
            StandardOpenOption.TRUNCATE_EXISTING,
            StandardOpenOption.WRITE)) {
      for (Map.Entry<Long, Chunk> entry : chunks.entrySet()) {
        long at = entry.getKey() * CHUNK_BYTES;
        int bytes = (int) Math.min(CHUNK_BYTES, length - at);
        channel.write(ByteBuffer.wrap(entry.getValue().bytes(), 0, bytes), at);
      }
      if (channel.size() < length) {
        channel.write(ByteBuffer.wrap(new byte[1]), length - 1);
      }
    } finally {
      lock.readLock().unlock();
    }
  }

  /**
   * Limits the space that the file may take from now on; operations that need more take what there
   * is, do as much as that allows, and throw {@link NoSpaceException}.
   */
  public void limitCapacity(long bytes) {
    lock.writeLock().lock();
    try {
      capacityBytes = bytes;
    } finally {
      lock.writeLock().unlock();
    }
  }

  /** The space that the file takes: holes take none. */
  public long allocatedBytes() {
    lock.readLock().lock();
    try {
      return (long) chunks.size() * CHUNK_BYTES;
    } finally {
      lock.readLock().unlock();
    }
  }

  /** How often the operation was asked for. */
  public long count(Operation operation) {
    return counts.getOrDefault(operation, 0L);
  }

  /** The bytes of a range; what lies past the end of the file reads as zeroes. */
  public byte[] bytes(long at, int count) {
    byte[] bytes = new byte[count];
    lock.readLock().lock();
    try {
      copyOut(at, bytes, 0, count);
    } finally {
      lock.readLock().unlock();
    }
    return bytes;
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public long length() {
    lock.readLock().lock();
    try {
      return length;
    } finally {
      lock.readLock().unlock();
    }
  }

  /** A sector that reads as zeroes is a hole: what a host may say of it. */
  @Override
  public long nextData(long at, long end) {
    return nextSector(at, end, false);
  }

  @Override
  public long nextHole(long at, long end) {
    return nextSector(at, end, true);
  }

  /** Where the next sector begins, or a part of one, that is zeroes or that is not. */
  private long nextSector(long at, long end, boolean zeroes) {
    lock.readLock().lock();
    try {
      long next = at;
      while (next < end) {
        long sectorEnd = Math.min(end, (next / SECTOR_BYTES + 1) * SECTOR_BYTES);
        byte[] part = new byte[(int) (sectorEnd - next)];
        copyOut(next, part, 0, part.length);
        if (Arrays.equals(part, new byte[part.length]) == zeroes) {
          return next;
        }
        next = sectorEnd;
      }
      return end;
    } finally {
      lock.readLock().unlock();
    }
  }

  /** All is in memory here; only the end of the file is in the way. */
  @Override
  public boolean tryRead(long at, ByteBuffer target) {
    int start = target.position();
    int _ = read(at, target);
    boolean whole = !target.hasRemaining();
    if (!whole) {
      target.position(start);
    }
    return whole;
  }

  @Override
  public int read(long at, ByteBuffer target) {
    counted(Operation.READ);
    byte[] bytes;
    lock.readLock().lock();
    try {
      int count = Math.clamp(length - at, 0, target.remaining());
      if (target.hasArray()) {
        copyOut(at, target.array(), target.arrayOffset() + target.position(), count);
        target.position(target.position() + count);
        return count;
      }
      bytes = new byte[count];
      copyOut(at, bytes, 0, count);
    } finally {
      lock.readLock().unlock();
    }
    target.put(bytes);
    return bytes.length;
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    counted(Operation.WRITE);
    checkRange(at, source.remaining());
    byte[] bytes = new byte[source.remaining()];
    source.get(bytes);
    lock.writeLock().lock();
    try {
      int room = (int) roomFor(at, bytes.length);
      put(at, bytes, 0, room);
      if (room < bytes.length) {
        throw noSpace("writing", at, bytes.length);
      }
    } finally {
      lock.writeLock().unlock();
    }
  }

  @Override
  public void sync() {
    counted(Operation.SYNC);
  }

  @Override
  public void setLength(long bytes) {
    counted(Operation.SET_LENGTH);
    checkRange(0, bytes);
    lock.writeLock().lock();
    try {
      if (bytes < length) {
        // To the end of the last chunk, so that it is given back too.
        clear(bytes, (length + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES - bytes);
      }
      length = bytes;
    } finally {
      lock.writeLock().unlock();
    }
  }

  @Override
  public void punchHole(long at, long bytes) {
    counted(Operation.PUNCH_HOLE);
    checkRange(at, bytes);
    lock.writeLock().lock();
    try {
      if (at + bytes > length) {
        throw new AssertionError(
            "punching " + bytes + " bytes at " + at + " of a file of " + length + " bytes");
      }
      clear(at, bytes);
    } finally {
      lock.writeLock().unlock();
    }
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    counted(Operation.ALLOCATE);
    take(at, bytes, false);
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    counted(Operation.ZERO_RANGE);
    take(at, bytes, true);
  }

  @Override
  public boolean tryZero(long at, long bytes, ZeroMode mode) throws IOException {
    long there = Math.clamp(length() - at, 0, bytes);
    if (mode == ZeroMode.KEEP_ALLOCATED) {
      zeroRange(at, bytes);
    } else if (there > 0) {
      punchHole(at, there);
    }
    return true;
  }

  @Override
  public void prefetch(long at, long bytes) {
    counted(Operation.PREFETCH);
    checkRange(at, bytes);
  }

  @Override
  public void close() {}

  private void take(long at, long bytes, boolean zero) throws NoSpaceException {
    checkRange(at, bytes);
    lock.writeLock().lock();
    try {
      long room = roomFor(at, bytes);
      if (zero) {
        clear(at, Math.min(room, Math.max(0, length - at)));
      }
      for (long index = at / CHUNK_BYTES; index * CHUNK_BYTES < at + room; index++) {
        chunks.putIfAbsent(index, ZEROES);
      }
      length = Math.max(length, room == 0 ? 0 : at + room);
      if (room < bytes) {
        throw noSpace("allocating", at, bytes);
      }
    } finally {
      lock.writeLock().unlock();
    }
  }

  private void counted(Operation operation) {
    counts.merge(operation, 1L, Long::sum);
  }

  private static void checkRange(long at, long bytes) {
    if (at < 0 || bytes < 0 || at + bytes < 0) {
      throw new AssertionError("no range of a file: " + bytes + " bytes at " + at);
    }
  }

  private NoSpaceException noSpace(String doing, long at, long bytes) {
    return new NoSpaceException(
        doing + " " + bytes + " bytes at " + at + " of " + name + ": no space left");
  }

  /** How many of the bytes, from the first on, have or get space. */
  private long roomFor(long at, long bytes) {
    if (capacityBytes == Long.MAX_VALUE) {
      return bytes;
    }
    long free = capacityBytes / CHUNK_BYTES - chunks.size();
    for (long index = at / CHUNK_BYTES; index * CHUNK_BYTES < at + bytes; index++) {
      if (!chunks.containsKey(index) && --free < 0) {
        return Math.max(0, index * CHUNK_BYTES - at);
      }
    }
    return bytes;
  }

  private void copyOut(long at, byte[] target, int from, int count) {
    int done = 0;
    while (done < count) {
      int within = (int) ((at + done) % CHUNK_BYTES);
      int step = Math.min(count - done, CHUNK_BYTES - within);
      @Nullable Chunk chunk = chunks.get((at + done) / CHUNK_BYTES);
      if (chunk == null) {
        Arrays.fill(target, from + done, from + done + step, (byte) 0);
      } else {
        System.arraycopy(chunk.bytes(), within, target, from + done, step);
      }
      done += step;
    }
  }

  private void put(long at, byte[] source, int from, int count) {
    int done = 0;
    while (done < count) {
      int within = (int) ((at + done) % CHUNK_BYTES);
      int step = Math.min(count - done, CHUNK_BYTES - within);
      byte[] chunk = writable((at + done) / CHUNK_BYTES);
      System.arraycopy(source, from + done, chunk, within, step);
      done += step;
    }
    if (count > 0) {
      length = Math.max(length, at + count);
    }
  }

  private byte[] writable(long index) {
    @Nullable Chunk chunk = chunks.get(index);
    if (chunk == null) {
      chunk = new Chunk(new byte[CHUNK_BYTES], owner);
      chunks.put(index, chunk);
    } else if (!chunk.owner().equals(owner)) {
      chunk = new Chunk(chunk.bytes().clone(), owner);
      chunks.put(index, chunk);
    }
    return chunk.bytes();
  }

  /** Zeroes a range and drops the chunks that it covers. */
  private void clear(long at, long bytes) {
    long end = at + bytes;
    long first = (at + CHUNK_BYTES - 1) / CHUNK_BYTES;
    long last = end / CHUNK_BYTES;
    if (first > last) {
      fill(last, at, end);
      return;
    }
    fill(first - 1, at, first * CHUNK_BYTES);
    fill(last, last * CHUNK_BYTES, end);
    if (last - first > chunks.size()) {
      chunks.keySet().removeIf(index -> index >= first && index < last);
      return;
    }
    for (long index = first; index < last; index++) {
      chunks.remove(index);
    }
  }

  /** Zeroes a part of one chunk. */
  private void fill(long index, long at, long end) {
    if (at < end && chunks.containsKey(index)) {
      int from = (int) (at - index * CHUNK_BYTES);
      Arrays.fill(writable(index), from, from + (int) (end - at), (byte) 0);
    }
  }
}
