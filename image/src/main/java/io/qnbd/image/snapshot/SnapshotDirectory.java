package io.qnbd.image.snapshot;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.format.SnapshotTable;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.L1Tables;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The snapshot table of an open image (qcow2 specification, "Snapshots").
 *
 * <p>It is replaced as a whole: the new table is durable in clusters of its own before one write of
 * the header's two fields makes it the valid one, so a power cut leaves the old table or the new.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class SnapshotDirectory {
  private final Storage file;
  private final Geometry geometry;
  private List<SnapshotEntry> entries;
  private long tableOffset;
  private long tableBytes;

  /**
   * The table as it was read.
   *
   * @param tableOffset where it is in the file; meaningless without entries
   */
  public SnapshotDirectory(
      Storage file, Geometry geometry, long tableOffset, List<SnapshotEntry> entries) {
    this.file = file;
    this.geometry = geometry;
    this.tableOffset = tableOffset;
    this.entries = List.copyOf(entries);
    this.tableBytes = new SnapshotTable(entries).bytes();
  }

  public List<SnapshotEntry> entries() {
    return entries;
  }

  /** Where the table is; meaningless without entries. */
  HostRun place() {
    return new HostRun(geometry.clusterOf(tableOffset), (int) geometry.clustersFor(tableBytes));
  }

  /** The snapshot of that name or, where none has it, of that id; null when there is none. */
  public @Nullable SnapshotEntry find(String nameOrId) {
    ByteBuffer wanted = ByteBuffer.wrap(nameOrId.getBytes(StandardCharsets.UTF_8));
    for (SnapshotEntry entry : entries) {
      if (entry.name().equals(wanted)) {
        return entry;
      }
    }
    for (SnapshotEntry entry : entries) {
      if (entry.id().equals(wanted)) {
        return entry;
      }
    }
    return null;
  }

  /**
   * Reads the L1 tables of all snapshots, one after the other; those that can't be are left out.
   *
   * @param except a snapshot that is left out too, or null
   * @throws CorruptImageException when they overlap, so that there is no end to them
   */
  public void forEachTable(@Nullable SnapshotEntry except, L1Tables.Use use) throws IOException {
    List<SnapshotEntry> wanted = new ArrayList<>(entries);
    wanted.remove(except); // the first that is the same: a second one shares its table
    List<SnapshotEntry> tables = new ArrayList<>();
    for (int index = 0; index < wanted.size(); index++) {
      SnapshotEntry entry = wanted.get(index);
      if (entry.l1Entries() > 0 && possible(entry, index)) {
        tables.add(entry);
      }
    }
    tables.sort(Comparator.comparingLong(SnapshotEntry::l1Offset));
    long end = 0;
    for (SnapshotEntry entry : tables) {
      if (entry.l1Offset() < end) {
        throw new CorruptImageException(file.name() + ": the L1 tables of its snapshots overlap");
      }
      end = entry.l1Offset() + entry.l1Entries() * L1Entry.BYTES;
    }
    for (SnapshotEntry entry : tables) {
      if (!file.isHole(entry.l1Offset(), entry.l1Entries() * L1Entry.BYTES)) {
        long[] l1 = new long[(int) entry.l1Entries()];
        TableIo.read(file, entry.l1Offset(), l1, "snapshot's L1 table");
        use.with(l1);
      }
    }
  }

  /** Whoever uses the snapshot is told why not. */
  private boolean possible(SnapshotEntry entry, int index) throws IOException {
    try {
      entry.requireTable(file.name(), index, geometry.clusterBytes(), file.length());
      return true;
    } catch (CorruptImageException _) {
      return false;
    }
  }

  /** Makes {@code replacement} the snapshots of the image; durable when this returns. */
  void replace(List<SnapshotEntry> replacement, Allocator allocator) throws IOException {
    long bytes = new SnapshotTable(replacement).bytes();
    HostRun run =
        bytes == 0 ? null : allocator.allocateContiguous((int) geometry.clustersFor(bytes));
    replace(replacement, run, allocator);
  }

  /** Moves the table before host cluster {@code target}, if it is behind and there is room. */
  public void moveBelow(long target, Allocator allocator) throws IOException {
    int clusters = (int) geometry.clustersFor(tableBytes);
    if (clusters > 0 && geometry.clusterOf(tableOffset) + clusters > target) {
      HostRun run = allocator.allocateContiguousBelow(clusters, target);
      if (run != null) {
        replace(entries, run, allocator);
      }
    }
  }

  private void replace(List<SnapshotEntry> replacement, @Nullable HostRun run, Allocator allocator)
      throws IOException {
    SnapshotTable table = new SnapshotTable(replacement);
    long bytes = table.bytes();
    long newOffset = 0;
    if (run != null) {
      newOffset = geometry.offsetOf(run.first());
      allocator.guard().note(MetadataUse.SNAPSHOT_TABLE, run.first(), run.count());
      file.write(newOffset, table.encode());
    }
    file.sync();
    ByteBuffer fields = ByteBuffer.allocate(Integer.BYTES + Long.BYTES);
    fields.putInt(replacement.size()).putLong(newOffset).flip();
    file.write(HeaderLayout.SNAPSHOT_COUNT_AT, fields);
    file.sync();
    long old = geometry.clusterOf(tableOffset);
    allocator.guard().forget(old, geometry.clustersFor(tableBytes));
    for (long i = 0; i < geometry.clustersFor(tableBytes); i++) {
      allocator.release(old + i);
    }
    entries = List.copyOf(replacement);
    tableOffset = newOffset;
    tableBytes = bytes;
  }

  /** The next free number, as text. */
  ByteBuffer nextId() {
    long highest = 0;
    for (SnapshotEntry entry : entries) {
      String id = entry.idText();
      if (id.matches("[0-9]{1,9}")) {
        highest = Math.max(highest, Long.parseLong(id));
      }
    }
    return ByteBuffer.wrap(Long.toString(highest + 1).getBytes(StandardCharsets.UTF_8));
  }
}
