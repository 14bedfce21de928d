package io.qnbd.image.snapshot;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.metadata.DirtyBit;
import io.qnbd.image.metadata.L1Tables;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Takes and removes internal snapshots, and reverts to one.
 *
 * <p>All of it under the dirty bit (version 3): a crash in the middle leaves counts and COPIED
 * flags to be made right by the next open for writing. The order is one that loses nothing even
 * where there is no such bit:
 *
 * <pre>
 *   create  counts up, COPIED flags cleared, L1 copied   durable before
 *           the directory names the snapshot             durable before
 *           the dirty bit is cleared
 *   delete  the directory without the snapshot           durable before
 *           its references are released, like any other  durable before
 *           COPIED flags set where one reference is left
 *   revert  counts up, a new L1 table                    durable before
 *           the header names the new L1 table            then counts are rebuilt, at rest
 * </pre>
 *
 * <p>Not thread-safe: one operation at a time. Each method says what its caller holds.
 */
public final class SnapshotOperations {
  /** References released between two commits of a removal: bounds its memory. */
  private static final int RELEASED_MAX = 1 << 15;

  /** What version 3 asks for: 8 bytes of machine state's length, 8 of the disk's. */
  private static final int EXTRA_BYTES = SnapshotEntry.EXTRA_BYTES_V3;

  /** QEMU's limit; an entry's length fields have 16 bits. */
  private static final int NAME_BYTES_MAX = 255;

  /** The header's limit, and QEMU's. */
  private static final int SNAPSHOTS_MAX = 65536;

  /** Commits what is pending and waits for it. The metadata lock must not be held. */
  @FunctionalInterface
  public interface Flush {
    void flush() throws IOException;
  }

  private final Storage file;
  private final Geometry geometry;
  private final ReentrantLock metadata;
  private final ClusterMap map;
  private final Allocator allocator;
  private final SnapshotDirectory directory;
  private final DirtyBit dirtyBit;
  private final Flush flush;
  private final TreeWalk walk;

  public SnapshotOperations(
      Storage file,
      Geometry geometry,
      ReentrantLock metadata,
      ClusterMap map,
      Allocator allocator,
      SnapshotDirectory directory,
      DirtyBit dirtyBit,
      Flush flush) {
    this.file = file;
    this.geometry = geometry;
    this.metadata = metadata;
    this.map = map;
    this.allocator = allocator;
    this.directory = directory;
    this.dirtyBit = dirtyBit;
    this.flush = flush;
    this.walk = new TreeWalk(file, geometry, metadata, allocator.guard());
  }

  /** The snapshots as the directory has them. */
  public List<SnapshotEntry> list() {
    metadata.lock();
    try {
      return directory.entries();
    } finally {
      metadata.unlock();
    }
  }

  /**
   * Takes a snapshot. The caller holds all guest clusters exclusively.
   *
   * @param virtualBytes the disk's size now
   */
  public void create(String name, long virtualBytes) throws IOException {
    requireNewName(name);
    flush.flush();
    HostRun l1Run;
    metadata.lock();
    try {
      requireRoomForReferences(map.l1());
      allocator.drain();
      dirtyBit.set();
      addReferences(map.l1());
      l1Run = writeL1Copy(map.l1());
      allocator.writeRefcounts();
    } finally {
      metadata.unlock();
    }
    forEachEntry(map.l1Entries(), map::clearCopied);
    // One sync for the counts, the copied L1 table and the cleared flags: all before the directory.
    flush.flush();
    metadata.lock();
    try {
      List<SnapshotEntry> entries = new ArrayList<>(directory.entries());
      entries.add(newEntry(name, l1Run, virtualBytes));
      directory.replace(entries, allocator);
      dirtyBit.clear();
    } finally {
      metadata.unlock();
    }
  }

  private SnapshotEntry newEntry(String name, HostRun l1Run, long virtualBytes) {
    Instant now = Instant.now();
    ByteBuffer extra = ByteBuffer.allocate(EXTRA_BYTES).putLong(0).putLong(virtualBytes).flip();
    return new SnapshotEntry(
        geometry.offsetOf(l1Run.first()),
        map.l1Entries(),
        now.getEpochSecond(),
        now.getNano(),
        0,
        0,
        extra,
        directory.nextId(),
        ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8)));
  }

  private void requireNewName(String name) throws IOException {
    int bytes = name.getBytes(StandardCharsets.UTF_8).length;
    if (bytes == 0 || bytes > NAME_BYTES_MAX) {
      throw new IOException(
          file.name() + ": a snapshot's name has 1 to " + NAME_BYTES_MAX + " bytes, not " + bytes);
    }
    metadata.lock();
    try {
      SnapshotEntry there = directory.find(name);
      if (there != null && there.nameText().equals(name)) {
        throw new IOException(file.name() + ": there is a snapshot named " + name + " already");
      }
      if (directory.entries().size() >= SNAPSHOTS_MAX) {
        throw new IOException(file.name() + ": has " + SNAPSHOTS_MAX + " snapshots already");
      }
    } finally {
      metadata.unlock();
    }
  }

  /** A copy of an L1 table, without COPIED flags, in clusters of its own. */
  private HostRun writeL1Copy(long[] l1) throws IOException {
    long[] copy = l1.clone();
    for (int i = 0; i < copy.length; i++) {
      copy[i] &= ~L1Entry.COPIED;
    }
    long clusters = Math.max(1, geometry.clustersFor((long) copy.length * L1Entry.BYTES));
    HostRun run = allocator.allocateContiguous((int) clusters);
    allocator.guard().note(MetadataUse.SNAPSHOT_L1_TABLE, run.first(), run.count());
    TableIo.write(file, geometry.offsetOf(run.first()), copy, 0, copy.length);
    return run;
  }

  /** Gives the snapshot another name. */
  public void rename(String snapshot, String name) throws IOException {
    requireNewName(name);
    metadata.lock();
    try {
      SnapshotEntry old = require(snapshot);
      List<SnapshotEntry> entries = new ArrayList<>(directory.entries());
      entries.set(
          entries.indexOf(old),
          new SnapshotEntry(
              old.l1Offset(),
              old.l1Entries(),
              old.takenSeconds(),
              old.takenNanos(),
              old.vmClockNanos(),
              old.vmStateBytes32(),
              old.extraData(),
              old.id(),
              ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8))));
      directory.replace(entries, allocator);
    } finally {
      metadata.unlock();
    }
  }

  /** The size of the snapshot's disk, {@code otherwise} if it does not say it. */
  public long virtualBytes(String snapshot, long otherwise) throws IOException {
    metadata.lock();
    try {
      return require(snapshot).virtualBytes().orElse(otherwise);
    } finally {
      metadata.unlock();
    }
  }

  private SnapshotEntry require(String snapshot) throws IOException {
    SnapshotEntry entry = directory.find(snapshot);
    if (entry == null) {
      throw new IOException(file.name() + ": has no snapshot named " + snapshot);
    }
    return entry;
  }

  private void requireTable(SnapshotEntry entry) throws IOException {
    entry.requireTable(
        file.name(), directory.entries().indexOf(entry), geometry.clusterBytes(), file.length());
  }

  private void requireDisk(SnapshotEntry entry, long virtualBytes) throws IOException {
    if (virtualBytes < 0
        || HeaderRules.l1EntriesFor(virtualBytes, geometry.clusterBits(), geometry.extendedL2())
            > entry.l1Entries()) {
      throw new CorruptImageException(
          String.format(
              "%s: the L1 table of the snapshot %s is too short for its disk of %s bytes",
              file.name(), entry.nameText(), Long.toUnsignedString(virtualBytes)));
    }
  }

  /** Removes a snapshot, in steps between which guests go on. Nothing need be held. */
  public void delete(String snapshot) throws IOException {
    SnapshotEntry entry;
    metadata.lock();
    try {
      entry = require(snapshot);
      requireTable(entry);
    } finally {
      metadata.unlock();
    }
    if (allocator.guard().comparesCounts()) {
      flush.flush();
      requireLastReferences(entry);
    }
    metadata.lock();
    try {
      List<SnapshotEntry> entries = new ArrayList<>(directory.entries());
      entries.remove(entry);
      dirtyBit.set();
      directory.replace(entries, allocator);
    } finally {
      metadata.unlock();
    }
    releaseTree(entry);
    flush.flush();
    forEachEntry(map.l1Entries(), map::restoreCopied);
    metadata.lock();
    try {
      allocator.writeRefcounts();
    } finally {
      metadata.unlock();
    }
    flush.flush();
    metadata.lock();
    try {
      dirtyBit.clear();
    } finally {
      metadata.unlock();
    }
  }

  /** Nothing may be given away that the disk or another snapshot refers to as well. */
  private void requireLastReferences(SnapshotEntry going) throws IOException {
    List<HostRun> alsoGoing = new ArrayList<>(List.of(directory.place()));
    if (going.l1Entries() > 0) {
      long clusters = geometry.clustersFor(going.l1Entries() * L1Entry.BYTES);
      alsoGoing.add(new HostRun(geometry.clusterOf(going.l1Offset()), (int) clusters));
    }
    new LastReferences(file, geometry, metadata, allocator, walk)
        .require(
            read(going.l1Offset(), (int) going.l1Entries(), "snapshot's L1 table"),
            alsoGoing,
            use -> forEachTableBut(going, use));
  }

  private void forEachTableBut(SnapshotEntry going, L1Tables.Use use) throws IOException {
    long[] l1;
    metadata.lock();
    try {
      l1 = read(map.l1Offset(), map.l1Entries(), "L1 table");
    } finally {
      metadata.unlock();
    }
    use.with(l1);
    directory.forEachTable(going, use);
  }

  private long[] read(long at, int entries, String what) throws IOException {
    long[] table = new long[entries];
    TableIo.read(file, at, table, what);
    return table;
  }

  /**
   * Throws unless all that snapshots refer to is counted as used. None may come or go meanwhile.
   */
  public void requireCounted() throws IOException {
    for (SnapshotEntry entry : list()) {
      requireTable(entry);
      long[] l1 = new long[(int) entry.l1Entries()];
      TableIo.read(file, entry.l1Offset(), l1, "snapshot's L1 table");
      walk.forEachTable(l1, (table, _) -> walk.forEachReference(table, this::requireCounted));
    }
  }

  private void requireCounted(long cluster) throws IOException {
    if (!allocator.inUse(cluster)) {
      throw allocator
          .guard()
          .found(
              String.format(
                  "a snapshot refers to cluster %d (0x%x), which is counted as free",
                  cluster, geometry.offsetOf(cluster)));
    }
  }

  /** The snapshot's tables are nobody's to change, so they can be read from the file. */
  private void releaseTree(SnapshotEntry entry) throws IOException {
    long[] l1 = new long[(int) entry.l1Entries()];
    TableIo.read(file, entry.l1Offset(), l1, "snapshot's L1 table");
    forEachEntry(l1.length, index -> walk.forEachReference(l1[index], allocator::release));
    metadata.lock();
    try {
      long first = geometry.clusterOf(entry.l1Offset());
      long clusters = geometry.clustersFor(entry.l1Entries() * L1Entry.BYTES);
      allocator.guard().forget(first, clusters);
      for (long cluster = first; cluster < first + clusters; cluster++) {
        allocator.release(cluster);
      }
    } finally {
      metadata.unlock();
    }
  }

  /**
   * Makes the snapshot's L1 table the active one. The caller holds all guest clusters exclusively
   * and, afterwards, closes the image without another write and rebuilds its refcounts: the old
   * tables' references are still counted, and no COPIED flag is set.
   */
  public void revert(String snapshot, long virtualBytes) throws IOException {
    flush.flush();
    metadata.lock();
    try {
      SnapshotEntry entry = require(snapshot);
      requireTable(entry);
      requireDisk(entry, entry.virtualBytes().orElse(virtualBytes));
      long[] l1 = new long[(int) entry.l1Entries()];
      TableIo.read(file, entry.l1Offset(), l1, "snapshot's L1 table");
      requireRoomForReferences(l1);
      dirtyBit.set();
      addReferences(l1);
      HostRun run = writeL1Copy(l1);
      allocator.writeRefcounts();
      file.sync();
      // size, crypt_method, which stays, l1_size, l1_table_offset: in one sector, in one write.
      ByteBuffer fields = ByteBuffer.allocate(2 * Long.BYTES + 2 * Integer.BYTES);
      file.read(HeaderLayout.VIRTUAL_BYTES_AT, fields);
      fields.putLong(0, entry.virtualBytes().orElse(virtualBytes));
      fields.putInt(HeaderLayout.L1_ENTRIES_AT - HeaderLayout.VIRTUAL_BYTES_AT, l1.length);
      fields.putLong(
          HeaderLayout.L1_OFFSET_AT - HeaderLayout.VIRTUAL_BYTES_AT,
          geometry.offsetOf(run.first()));
      file.write(HeaderLayout.VIRTUAL_BYTES_AT, fields.clear());
      file.sync();
    } finally {
      metadata.unlock();
    }
  }

  private void requireRoomForReferences(long[] l1) throws IOException {
    forEachReference(
        l1,
        cluster -> {
          if (!allocator.canAddReference(cluster)) {
            throw tooNarrow();
          }
        });
  }

  private void forEachReference(long[] l1, TreeWalk.Reference reference) throws IOException {
    for (long l1Entry : l1) {
      walk.forEachReference(l1Entry, reference);
    }
  }

  private UnsupportedImageException tooNarrow() {
    return new UnsupportedImageException(
        file.name()
            + ": its refcounts of "
            + geometry.refcountBits()
            + " bits can't count one more snapshot");
  }

  /**
   * Counts all references below an L1 table once more. Compressed clusters that share a host
   * cluster raise its count more than once; where that is too often, all is taken back, and the
   * dirty bit that the caller has set is let go of.
   */
  private void addReferences(long[] l1) throws IOException {
    long[] added = new long[1];
    try {
      forEachReference(
          l1,
          cluster -> {
            if (!allocator.canAddReference(cluster)) {
              throw tooNarrow();
            }
            allocator.addReference(cluster);
            added[0]++;
          });
    } catch (UnsupportedImageException e) {
      forEachReference(
          l1,
          cluster -> {
            if (added[0]-- > 0) {
              allocator.takeBackReference(cluster);
            }
          });
      allocator.writeRefcounts();
      file.sync();
      dirtyBit.clear();
      throw e;
    }
  }

  /** What is done with an entry of an L1 table. */
  private interface EntryChange {
    void at(int l1Index) throws IOException;
  }

  /**
   * Takes the lock for one entry at a time, so that no guest waits for long, and commits when much
   * is pending.
   */
  private void forEachEntry(int count, EntryChange change) throws IOException {
    for (int index = 0; index < count; index++) {
      boolean full;
      metadata.lock();
      try {
        change.at(index);
        full = map.crowded() || allocator.releasedCount() > RELEASED_MAX;
      } finally {
        metadata.unlock();
      }
      if (full) {
        flush.flush();
      }
    }
  }
}
