package io.qnbd.image.io;

import io.qnbd.image.ZeroMode;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.TreeMap;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * A file whose power can be cut.
 *
 * <p>It keeps what is durable and, for each 512-byte sector changed since, every version that the
 * sector has had since the last sync, like a disk under a page cache that writes back when it
 * likes. {@link #cut} makes one of the files that may be found after a power cut: each sector is
 * the durable one or any of its later versions, in part of a write as well, and each change of the
 * length is kept or lost, with two limits that file systems keep: a kept sector extends the file to
 * hold it, and a kept shortening zeroes what older writes had put behind the new end.
 *
 * <p>A sync makes durable what returned before it was called. What other threads write while it
 * runs stays undecided.
 *
 * <p>Thread-safe; {@link #lock} guards everything. The watcher runs inside it.
 */
public final class CrashStorage implements Storage {
  /** The unit that a disk writes whole or not at all. */
  public static final int SECTOR_BYTES = 512;

  private static final byte[] ZERO_SECTOR = new byte[SECTOR_BYTES];

  /** Told of each operation that changes the file or syncs it, before it takes effect. */
  @FunctionalInterface
  public interface Watcher {
    /** An operation begins; {@code storage} may be cut here. */
    void before(Operation operation, CrashStorage storage);
  }

  /**
   * What an operation made of a sector; no bytes are zeroes. {@code end} is how far the operation
   * reached into the sector, 0 if it did not extend the file.
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Version(long operation, byte @Nullable [] bytes, int end) {}

  /** A change since the last sync; {@code length} is the file's new length, or -1 if it kept it. */
  private record Change(long number, Operation operation, long length) {}

  private enum Fate {
    LOST,
    KEPT,
    TORN
  }

  private final Object lock;

  /** The file that this one shares its power with; itself if it came first. */
  private final CrashStorage first;

  private final MemoryStorage live;
  private final MemoryStorage durable;
  private final TreeMap<Long, List<Version>> dirty = new TreeMap<>();
  private final List<Change> pending = new ArrayList<>();
  private final Map<Operation, Long> counts = new EnumMap<>(Operation.class);
  private long operations;
  private long cutAt = Long.MAX_VALUE;
  private @Nullable Watcher watcher;
  private volatile long syncNanos;

  /** A file that holds these contents durably; {@code contents} itself is not changed. */
  public CrashStorage(MemoryStorage contents) {
    lock = new Object();
    first = this;
    live = contents.copy();
    durable = contents.copy();
  }

  private CrashStorage(MemoryStorage contents, CrashStorage first) {
    lock = first.lock;
    this.first = first;
    live = contents.copy();
    durable = contents.copy();
  }

  /**
   * A second file that loses its power with this one: its operations count as this one's, are shown
   * to this one's watcher, and end when this one is cut. What each keeps is decided by itself.
   */
  public CrashStorage beside(MemoryStorage contents) {
    return new CrashStorage(contents, this);
  }

  /** Has every operation from now on shown to {@code watcher}, or to none. */
  public void watch(@Nullable Watcher newWatcher) {
    synchronized (lock) {
      watcher = newWatcher;
    }
  }

  /**
   * Cuts the power at the {@code number}th operation that changes the file or syncs it, counted
   * from 1 since this storage was made: that one is in flight when the power goes, so any part of
   * it may be found, and it and all later ones, reads too, throw {@link PowerCut}.
   */
  public void cutAt(long number) {
    synchronized (lock) {
      cutAt = number;
    }
  }

  /** Makes each sync take this long, so that other threads write while it runs. */
  public void slowSyncs(long nanos) {
    syncNanos = nanos;
  }

  /** Operations so far that changed the file or synced it. */
  public long operations() {
    synchronized (lock) {
      return operations;
    }
  }

  /** How often the operation was asked for. */
  public long count(Operation operation) {
    synchronized (lock) {
      return counts.getOrDefault(operation, 0L);
    }
  }

  /** Whether the power has been cut. */
  public boolean isCut() {
    synchronized (lock) {
      return operations >= cutAt;
    }
  }

  /** What a process that outlives the power cut would read: everything written so far. */
  public MemoryStorage contents() {
    synchronized (lock) {
      return live.copy();
    }
  }

  /** One of the files that may be found if the power went now. */
  public MemoryStorage cut(SeededRandom random) {
    synchronized (lock) {
      Map<Long, Fate> fates = new TreeMap<>();
      boolean anyVersion = decide(random, fates);
      MemoryStorage file = durable.copy();
      TreeMap<Long, Long> ends = new TreeMap<>();
      TreeMap<Long, Version> chosen = new TreeMap<>();
      for (Map.Entry<Long, List<Version>> entry : dirty.entrySet()) {
        @Nullable Version version =
            anyVersion
                ? anyOf(entry.getValue(), random)
                : lastKept(entry.getValue(), fates, random);
        if (version != null) {
          chosen.put(entry.getKey(), version);
        }
        if (version != null && version.end() > 0) {
          ends.merge(version.operation(), entry.getKey() * SECTOR_BYTES + version.end(), Math::max);
        }
      }
      long length = applyLengths(fates, ends, chosen);
      file.setLength(Math.max(length, file.length()));
      chosen.forEach((sector, version) -> putSector(file, sector, version.bytes()));
      file.setLength(length);
      return file;
    }
  }

  @Override
  public String name() {
    return live.name();
  }

  @Override
  public long length() throws IOException {
    synchronized (lock) {
      checkPower();
      return live.length();
    }
  }

  @Override
  public long nextData(long at, long end) throws IOException {
    synchronized (lock) {
      checkPower();
      return live.nextData(at, end);
    }
  }

  /** All is in memory here; only the end of the file is in the way. */
  @Override
  public boolean tryRead(long at, ByteBuffer target) throws IOException {
    int start = target.position();
    int _ = read(at, target);
    boolean whole = !target.hasRemaining();
    if (!whole) {
      target.position(start);
    }
    return whole;
  }

  @Override
  public int read(long at, ByteBuffer target) throws IOException {
    synchronized (lock) {
      counts.merge(Operation.READ, 1L, Long::sum);
      checkPower();
      return live.read(at, target);
    }
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    synchronized (lock) {
      begin(Operation.WRITE);
      int bytes = source.remaining();
      boolean grows = bytes > 0 && at + bytes > live.length();
      live.write(at, source);
      pending.add(new Change(operations, Operation.WRITE, grows ? at + bytes : -1));
      addVersions(at, bytes, false);
      checkPower();
    }
  }

  @Override
  public void sync() throws IOException {
    long covered;
    synchronized (lock) {
      begin(Operation.SYNC);
      checkPower();
      covered = operations;
    }
    // Here others may write, and what they write is not covered.
    LockSupport.parkNanos(syncNanos);
    synchronized (lock) {
      checkPower();
      makeDurable(covered);
    }
  }

  @Override
  public void setLength(long bytes) throws IOException {
    synchronized (lock) {
      begin(Operation.SET_LENGTH);
      long before = live.length();
      live.setLength(bytes);
      pending.add(new Change(operations, Operation.SET_LENGTH, bytes));
      if (bytes < before) {
        addVersions(bytes, before - bytes, true);
      }
      checkPower();
    }
  }

  @Override
  public void punchHole(long at, long bytes) throws IOException {
    synchronized (lock) {
      begin(Operation.PUNCH_HOLE);
      live.punchHole(at, bytes);
      pending.add(new Change(operations, Operation.PUNCH_HOLE, -1));
      addVersions(at, bytes, true);
      checkPower();
    }
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    synchronized (lock) {
      begin(Operation.ALLOCATE);
      long before = live.length();
      live.allocate(at, bytes);
      grown(Operation.ALLOCATE, before);
      checkPower();
    }
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    synchronized (lock) {
      begin(Operation.ZERO_RANGE);
      long before = live.length();
      live.zeroRange(at, bytes);
      grown(Operation.ZERO_RANGE, before);
      addVersions(at, Math.min(at + bytes, before) - at, true);
      checkPower();
    }
  }

  @Override
  public boolean tryZero(long at, long bytes, ZeroMode mode) throws IOException {
    switch (mode) {
      case MAY_UNMAP -> punchHole(at, bytes);
      case KEEP_ALLOCATED -> zeroRange(at, bytes);
    }
    return true;
  }

  @Override
  public void prefetch(long at, long bytes) {}

  @Override
  public void close() {}

  private void begin(Operation operation) throws IOException {
    counts.merge(operation, 1L, Long::sum);
    checkPower();
    operations++;
    if (first != this) {
      first.operations++;
    }
    if (first.watcher != null) {
      first.watcher.before(operation, first);
    }
  }

  /**
   * Called at the start of an operation, and at its end, when it may have been the one that ends.
   */
  private void checkPower() throws PowerCut {
    if (first.operations >= first.cutAt) {
      throw new PowerCut("the power was cut at operation " + first.cutAt + " on " + live.name());
    }
  }

  private void grown(Operation operation, long before) {
    long after = live.length();
    pending.add(new Change(operations, operation, after > before ? after : -1));
  }

  /**
   * Records what the operation that has just changed {@code live} made of the sectors of a range.
   *
   * @param zeroes whether it zeroed them: sectors that are zero anyway are left out then
   */
  private void addVersions(long at, long bytes, boolean zeroes) {
    long end = at + bytes;
    for (long sector = at / SECTOR_BYTES; sector * SECTOR_BYTES < end; sector++) {
      long start = sector * SECTOR_BYTES;
      byte @Nullable [] contents = live.bytes(start, SECTOR_BYTES);
      if (zeroes && Arrays.equals(contents, ZERO_SECTOR)) {
        if (!dirty.containsKey(sector)
            && Arrays.equals(durable.bytes(start, SECTOR_BYTES), ZERO_SECTOR)) {
          continue;
        }
        contents = null;
      }
      int reached = zeroes ? 0 : (int) Math.min(SECTOR_BYTES, end - start);
      dirty
          .computeIfAbsent(sector, _ -> new ArrayList<>(2))
          .add(new Version(operations, contents, reached));
    }
  }

  private void makeDurable(long covered) {
    long length = durable.length();
    for (Change change : pending) {
      if (change.number() <= covered && change.length() >= 0) {
        length = change.length();
      }
    }
    // Longer first, so that every sector has its place; cut to size afterwards.
    durable.setLength(Math.max(length, durable.length()));
    dirty
        .entrySet()
        .removeIf(entry -> {
          List<Version> versions = entry.getValue();
          @Nullable Version last = null;
          while (!versions.isEmpty() && versions.getFirst().operation() <= covered) {
            last = versions.removeFirst();
          }
          if (last != null) {
            putSector(durable, entry.getKey(), last.bytes());
          }
          return versions.isEmpty();
        });
    durable.setLength(length);
    pending.removeIf(change -> change.number() <= covered);
  }

  private static void putSector(MemoryStorage file, long sector, byte @Nullable [] bytes) {
    long at = sector * SECTOR_BYTES;
    if (bytes == null) {
      long count = Math.min(SECTOR_BYTES, file.length() - at);
      if (count > 0) {
        file.punchHole(at, count);
      }
      return;
    }
    try {
      file.write(at, ByteBuffer.wrap(bytes));
    } catch (IOException e) {
      throw new AssertionError("a file without a limit was full", e);
    }
  }

  /**
   * Chooses which of the pending operations are found after the cut. Orders that an engine may get
   * wrong rarely show when every sector tosses its own coin, so most cuts keep or lose whole
   * operations.
   *
   * @return true for the cut in which every sector chooses by itself among all its versions
   */
  private boolean decide(SeededRandom random, Map<Long, Fate> fates) {
    int count = pending.size();
    int style = random.below(9);
    int at = count == 0 ? 0 : random.below(count);
    int keptPercent = random.pick(List.of(10, 50, 50, 90));
    boolean tears = random.chance(30);
    for (int i = 0; i < count; i++) {
      boolean kept =
          switch (style) {
            case 0 -> true;
            case 1 -> false;
            case 2 -> i == at; // one operation overtook all others
            case 3 -> i != at; // one operation came too late
            case 4 -> i <= at;
            case 5 -> i > at;
            default -> random.chance(keptPercent);
          };
      Change change = pending.get(i);
      boolean torn = kept && tears && change.operation() != Operation.SET_LENGTH;
      fates.put(
          change.number(), torn && random.chance(50) ? Fate.TORN : kept ? Fate.KEPT : Fate.LOST);
    }
    return style == 8;
  }

  private static @Nullable Version lastKept(
      List<Version> versions, Map<Long, Fate> fates, SeededRandom random) {
    for (Version version : versions.reversed()) {
      boolean kept =
          switch (fates.getOrDefault(version.operation(), Fate.LOST)) {
            case LOST -> false;
            case KEPT -> true;
            case TORN -> random.chance(50);
          };
      if (kept) {
        return version;
      }
    }
    return null;
  }

  private static @Nullable Version anyOf(List<Version> versions, SeededRandom random) {
    int choice = random.below(versions.size() + 1);
    return choice == versions.size() ? null : versions.get(choice);
  }

  /** Replays the changes of the length that are found after the cut; returns what comes of them. */
  private long applyLengths(
      Map<Long, Fate> fates, Map<Long, Long> ends, NavigableMap<Long, Version> chosen) {
    long length = durable.length();
    for (Change change : pending) {
      boolean explicit = change.operation() != Operation.WRITE && change.length() >= 0;
      if (explicit && fates.get(change.number()) != Fate.LOST) {
        boolean cuts = change.operation() == Operation.SET_LENGTH;
        length = cuts ? change.length() : Math.max(length, change.length());
        if (cuts) {
          zeroBehind(change, chosen);
        }
      }
      length = Math.max(length, ends.getOrDefault(change.number(), 0L));
    }
    return length;
  }

  /** What older writes had put behind the end of a shortened file does not come back. */
  private void zeroBehind(Change shortened, NavigableMap<Long, Version> chosen) {
    long sector = shortened.length() / SECTOR_BYTES;
    for (long at = sector; at * SECTOR_BYTES < durable.length(); at++) {
      @Nullable Version version = chosen.get(at);
      if (version == null || version.operation() < shortened.number()) {
        chosen.put(at, cutOff(shortened, at, version));
      }
    }
    chosen
        .tailMap(sector, true)
        .replaceAll((at, version) ->
            version.operation() < shortened.number() ? cutOff(shortened, at, version) : version);
  }

  private Version cutOff(Change shortened, long sector, @Nullable Version version) {
    long inside = shortened.length() - sector * SECTOR_BYTES;
    if (inside <= 0 || (version != null && version.bytes() == null)) {
      return new Version(shortened.number(), null, 0);
    }
    byte[] bytes = new byte[SECTOR_BYTES];
    if (version == null) {
      bytes = durable.bytes(sector * SECTOR_BYTES, SECTOR_BYTES);
    } else if (version.bytes() != null) {
      bytes = version.bytes().clone();
    }
    Arrays.fill(bytes, (int) inside, SECTOR_BYTES, (byte) 0);
    return new Version(shortened.number(), bytes, 0);
  }
}
