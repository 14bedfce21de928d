package io.qnbd.image.check;

import io.qnbd.image.ClusterKind;
import io.qnbd.image.LayoutSink;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.BitSet;

/**
 * Tells what each cluster of an image's file is used for: by what refers to it, by its stored
 * refcount, and by what the host keeps for it. Reads only.
 *
 * <p>Owner: one call. Not thread-safe.
 */
public final class LayoutWalk {
  private static final int PIECE_BYTES = 64 << 10;

  private final Storage storage;
  private final ImageFile file;
  private final ReferenceWalk walk;
  private final Header header;
  private final Geometry geometry;
  private final ClusterCounts counts;
  private final ClusterMarks marks = new ClusterMarks();
  private final LayoutSink sink;
  private ClusterKind pending = ClusterKind.HEADER;
  private long pendingFirst;

  private LayoutWalk(Storage storage, LayoutSink sink) throws IOException {
    this.storage = storage;
    this.file = ImageFile.of(storage);
    this.walk = new ReferenceWalk(storage, ReferenceWalk.pagesMax());
    this.header = walk.header();
    this.geometry = header.geometry();
    this.counts = walk.counts();
    this.sink = sink;
  }

  /**
   * Tells the whole file. Damage does not stop it: a cluster with two owners is told as the first.
   *
   * @throws io.qnbd.image.CorruptImageException when header or snapshot table can't be read at all
   */
  public static void tell(Storage storage, ProgressListener progress, LayoutSink sink)
      throws IOException {
    LayoutWalk layout = new LayoutWalk(storage, sink);
    layout.walk.count(progress);
    layout.mark(progress);
    layout.tellAll();
  }

  private void mark(ProgressListener progress) throws IOException {
    long[] tables = counts.clustersOf(ClusterUse.L2_TABLE);
    BitSet active = activeTables(tables);
    ByteBuffer table = ByteBuffer.allocate(geometry.clusterBytes());
    for (int index = 0; index < tables.length; index++) {
      file.read(geometry.offsetOf(tables[index]), table);
      markEntries(table, active.get(index));
      progress.progress("looking at clusters", index + 1, tables.length);
    }
  }

  /** Which of the tables, by their place among {@code tables}, the active L1 table names. */
  private BitSet activeTables(long[] tables) throws IOException {
    BitSet active = new BitSet();
    long bytes = (long) header.l1Entries() * L1Entry.BYTES;
    for (long at = 0; at < bytes; at += PIECE_BYTES) {
      ByteBuffer piece = file.read(header.l1Offset() + at, (int) Math.min(PIECE_BYTES, bytes - at));
      while (piece.hasRemaining()) {
        long table = geometry.clusterOf(L1Entry.tableOffset(piece.getLong()));
        int index = Arrays.binarySearch(tables, table);
        if (index >= 0) {
          active.set(index);
        }
      }
    }
    return active;
  }

  private void markEntries(ByteBuffer table, boolean active) {
    int entryBytes = header.extendedL2() ? 2 * L2Entry.BYTES : L2Entry.BYTES;
    int owner = active ? ClusterMarks.ACTIVE : 0;
    for (int at = 0; at < table.limit(); at += entryBytes) {
      long entry = table.getLong(at);
      if (entry == 0) {
        continue;
      }
      if (L2Entry.compressed(entry)) {
        long from = L2Entry.compressedOffset(entry, geometry.clusterBits());
        long last = from + L2Entry.compressedBytes(entry, geometry.clusterBits()) - 1;
        for (long c = geometry.clusterOf(from); c <= geometry.clusterOf(last); c++) {
          markCounted(c, ClusterMarks.COMPRESSED | owner);
        }
        continue;
      }
      boolean zero =
          header.extendedL2()
              ? (int) table.getLong(at + L2Entry.BYTES) == 0 // none of its subclusters has data
              : L2Entry.zero(entry);
      long host = L2Entry.hostOffset(entry);
      if (host != 0 && !header.hasDataFile()) {
        markCounted(geometry.clusterOf(host), (zero ? 0 : ClusterMarks.PLAIN) | owner);
      }
    }
  }

  /** Only what was counted is remembered, so that the counts' bound on memory holds here too. */
  private void markCounted(long cluster, int mark) {
    if (counts.count(cluster) != 0) {
      marks.add(cluster, mark);
    }
  }

  private void tellAll() throws IOException {
    long end = geometry.clustersFor(file.fileBytes());
    sink.begin(end, geometry.clusterBytes());
    long[] blocks = walk.refcounts().blocks();
    long perBlock = geometry.refcountBlockEntries();
    byte[] block = new byte[geometry.clusterBytes()];
    long first = 0;
    for (int index = 0; index < blocks.length && first < end; index++) {
      long blockEnd = Math.min(first + perBlock, end);
      if (blocks[index] == 0) {
        tellUncounted(first, blockEnd);
      } else {
        file.read(blocks[index], ByteBuffer.wrap(block));
        for (long cluster = first; cluster < blockEnd; cluster++) {
          int entry = (int) (cluster - first);
          boolean stored = RefcountEntries.get(block, geometry.refcountOrder(), entry) != 0;
          add(cluster, kindOf(cluster, stored));
        }
      }
      first = blockEnd;
    }
    tellUncounted(first, end);
    flush(end);
  }

  /** Clusters whose stored refcount is 0: only those that are referenced all the same differ. */
  private void tellUncounted(long from, long end) throws IOException {
    for (long cluster = from; cluster < end; ) {
      long next = counts.nextReferenced(cluster, end);
      if (next > cluster) {
        add(cluster, ClusterKind.FREE);
      }
      if (next < end) {
        add(next, kindOf(next, false));
      }
      cluster = next + 1;
    }
  }

  private ClusterKind kindOf(long cluster, boolean stored) {
    int count = counts.count(cluster);
    if (count == 0) {
      return stored ? ClusterKind.LEAKED : ClusterKind.FREE;
    }
    return switch (counts.useOf(cluster)) {
      case HEADER -> ClusterKind.HEADER;
      case L1_TABLE -> ClusterKind.L1_TABLE;
      case L2_TABLE -> ClusterKind.L2_TABLE;
      case REFCOUNT_TABLE, REFCOUNT_BLOCK -> ClusterKind.REFCOUNTS;
      case SNAPSHOT_TABLE -> ClusterKind.SNAPSHOT_TABLE;
      case BITMAP -> ClusterKind.BITMAP;
      case ENCRYPTION_HEADER -> ClusterKind.ENCRYPTION_HEADER;
      case DATA -> dataKind(cluster, count);
    };
  }

  private ClusterKind dataKind(long cluster, int count) {
    int mark = marks.get(cluster);
    if ((mark & ClusterMarks.COMPRESSED) != 0) {
      return ClusterKind.COMPRESSED;
    }
    if ((mark & ClusterMarks.PLAIN) == 0) {
      return ClusterKind.ZERO;
    }
    if (count > 1) {
      return ClusterKind.SHARED;
    }
    return (mark & ClusterMarks.ACTIVE) == 0 ? ClusterKind.SNAPSHOT : ClusterKind.DATA;
  }

  private void add(long cluster, ClusterKind kind) throws IOException {
    if (kind != pending) {
      flush(cluster);
      pending = kind;
    }
  }

  /** Tells the run that ends before {@code end}. */
  private void flush(long end) throws IOException {
    if (pendingFirst < end) {
      switch (pending) {
        case FREE -> tellWithHoles(pendingFirst, end, ClusterKind.HOLE);
        case DATA -> tellWithHoles(pendingFirst, end, ClusterKind.ZERO);
        default -> sink.clusters(end - pendingFirst, pending);
      }
    }
    pendingFirst = end;
  }

  /** Tells a run of the pending kind, but for clusters for which the host keeps nothing. */
  private void tellWithHoles(long first, long end, ClusterKind hole) throws IOException {
    long endByte = geometry.offsetOf(end);
    for (long cluster = first; cluster < end; ) {
      long at = geometry.offsetOf(cluster);
      long data = geometry.clusterOf(storage.nextData(at, endByte));
      if (data > cluster) {
        sink.clusters(data - cluster, hole);
        cluster = data;
      } else {
        long next = geometry.clustersFor(Math.max(at + 1, storage.nextHole(at, endByte)));
        sink.clusters(next - cluster, pending);
        cluster = next;
      }
    }
  }
}
