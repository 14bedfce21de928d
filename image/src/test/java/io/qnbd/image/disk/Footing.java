package io.qnbd.image.disk;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.format.SnapshotTable;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;

/**
 * Which guest clusters of a damaged image stand on firm ground: each host cluster on the way to
 * their bytes is counted as often as anything in the file refers to it, or more often. Only of
 * these can a writer that does not read the whole file promise that they survive. Data in an
 * external data file has the one place that it can have, which nobody counts.
 *
 * <p>Looks at the bytes as they are and believes nothing. Not thread-safe.
 */
final class Footing {
  /** No image of the test is longer, but those that were made so by nothing but their length. */
  private static final int KNOWN_BYTES_MAX = 48 << 20;

  private static final long ENTRIES_MAX = 1 << 20;

  private final long fileBytes;
  private final ByteBuffer known;
  private final Header header;
  private final Geometry geometry;
  private final Map<Long, Integer> references = new HashMap<>();

  /** How often L1 entries name each L2 table. */
  private final Map<Long, Integer> tables = new HashMap<>();

  private final int step;

  /** What the refcount blocks say of clusters that were asked for. */
  private final Map<Long, Long> counts = new HashMap<>();

  Footing(MemoryStorage file) throws IOException {
    fileBytes = file.length();
    known = ByteBuffer.wrap(file.bytes(0, (int) Math.min(KNOWN_BYTES_MAX, fileBytes)));
    ImageFile image = ImageFile.of(file);
    header = image.readHeader();
    geometry = header.geometry();
    step = geometry.l2EntryWords();
    add(0, 1, 1);
    add(header.refcountTableOffset(), geometry.offsetOf(header.refcountTableClusters()), 1);
    for (long i = 0; i < geometry.offsetOf(header.refcountTableClusters()) / 8; i++) {
      long block = word(header.refcountTableOffset() + 8 * i);
      if (block != 0) {
        add(block, geometry.clusterBytes(), 1);
      }
    }
    addL1(header.l1Offset(), header.l1Entries());
    SnapshotTable snapshots = image.readSnapshots(header);
    add(header.snapshotsOffset(), snapshots.bytes(), 1);
    for (SnapshotEntry entry : snapshots.entries()) {
      addL1(entry.l1Offset(), entry.l1Entries());
    }
    addBitmaps();
    tables.forEach(this::addTable);
  }

  /** Bitmaps, whether anybody believes them or not (qcow2 specification, "Bitmaps extension"). */
  private void addBitmaps() {
    HeaderExtension extension = header.extension(HeaderExtension.BITMAPS);
    if (extension == null || extension.data().remaining() < 24) {
      return;
    }
    long bytes = extension.data().getLong(extension.data().position() + 8);
    long directory = extension.data().getLong(extension.data().position() + 16);
    add(directory, bytes, 1);
    long end = Math.min(known.limit(), directory + bytes);
    for (long at = directory; at >= 0 && at + 24 <= end; ) {
      long entries = Math.min(word(at + 8) >>> 32, ENTRIES_MAX);
      addL1(word(at), entries); // a table of offsets, too
      long names = word(at + 16);
      long nameBytes = (names >>> 32) & 0xffff;
      at += (24 + (names & 0xffff_ffffL) + nameBytes + 7) & ~7L;
    }
  }

  private long word(long at) {
    return at < 0 || at > known.limit() - 8 ? 0 : known.getLong((int) at);
  }

  private void add(long at, long bytes, int times) {
    if (at < 0 || bytes <= 0 || bytes > fileBytes + geometry.clusterBytes()) {
      return;
    }
    for (long cluster = geometry.clusterOf(at);
        cluster <= geometry.clusterOf(at + bytes - 1);
        cluster++) {
      references.merge(cluster, times, Integer::sum);
    }
  }

  private void addL1(long at, long entries) {
    long count = Math.min(Math.min(entries, ENTRIES_MAX), fileBytes / 8);
    add(at, count * 8, 1);
    for (long i = 0; i < count; i++) {
      long table = L1Entry.tableOffset(word(at + 8 * i));
      if (table != 0) {
        tables.merge(table, 1, Integer::sum);
      }
    }
  }

  private void addTable(long table, int times) {
    add(table, geometry.clusterBytes(), times);
    for (int i = 0; i < geometry.l2Entries(); i++) {
      long entry = word(table + 8L * step * i);
      add(place(entry), bytes(entry), times);
    }
  }

  private long place(long entry) {
    return L2Entry.compressed(entry)
        ? L2Entry.compressedOffset(entry, geometry.clusterBits())
        : L2Entry.hostOffset(entry);
  }

  private int bytes(long entry) {
    if (header.hasDataFile()) {
      return 0;
    }
    if (L2Entry.compressed(entry)) {
      return L2Entry.compressedBytes(entry, geometry.clusterBits());
    }
    return L2Entry.hostOffset(entry) == 0 ? 0 : geometry.clusterBytes();
  }

  /** Whether nothing but the guest's own writes may change what the cluster reads as. */
  boolean firm(long guestCluster) {
    int perTable = geometry.l2Entries();
    long table = L1Entry.tableOffset(word(header.l1Offset() + 8 * (guestCluster / perTable)));
    if (table == 0) {
      return true;
    }
    long entry = word(table + 8L * step * (guestCluster % perTable));
    return counted(table, geometry.clusterBytes()) && counted(place(entry), bytes(entry));
  }

  private boolean counted(long at, int bytes) {
    for (long cluster = geometry.clusterOf(at);
        bytes > 0 && cluster <= geometry.clusterOf(at + bytes - 1);
        cluster++) {
      long stored = counts.computeIfAbsent(cluster, this::stored);
      if (Long.compareUnsigned(stored, references.getOrDefault(cluster, 0)) < 0) {
        return false;
      }
    }
    return true;
  }

  private long stored(long cluster) {
    long index = cluster / geometry.refcountBlockEntries();
    long block =
        index < geometry.offsetOf(header.refcountTableClusters()) / 8
            ? word(header.refcountTableOffset() + 8 * index)
            : 0;
    if (block <= 0 || block > known.limit() - geometry.clusterBytes()) {
      return 0;
    }
    // One entry's byte, or bytes, is all that is looked at.
    int inBlock = (int) (cluster % geometry.refcountBlockEntries());
    int at = RefcountEntries.byteOf(geometry.refcountOrder(), inBlock);
    byte[] entry = new byte[Math.max(1, geometry.refcountBits() / 8)];
    known.get((int) block + at, entry);
    int inEntry = geometry.refcountBits() < 8 ? inBlock % (8 / geometry.refcountBits()) : 0;
    return RefcountEntries.get(entry, geometry.refcountOrder(), inEntry);
  }
}
