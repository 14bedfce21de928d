package io.qnbd.image.check;

import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.TableIo;
import java.io.IOException;

/**
 * Makes COPIED say "one reference" in the active tables (qcow2 specification, "Cluster mapping").
 * In tables that only snapshots use it need not be accurate, so it is taken away only where it can
 * never be: from compressed clusters and from nothing.
 *
 * <p>An entry stays or becomes what the references say, each in a write of its own sector, so it
 * does not matter which of the writes a power cut keeps.
 *
 * <p>Owner: one rebuild. Not thread-safe.
 */
final class CopiedFlags {
  /** L1 entries written together: a page. */
  private static final int L1_PIECE_ENTRIES = 512;

  private final Storage file;
  private final Header header;
  private final Geometry geometry;
  private final ClusterCounts counts;

  /**
   * @param counts all references, of tables that are whole and in the file
   */
  CopiedFlags(Storage file, Header header, ClusterCounts counts) {
    this.file = file;
    this.header = header;
    this.geometry = header.geometry();
    this.counts = counts;
  }

  /**
   * Writes the tables that have a wrong flag.
   *
   * @return whether there was one
   */
  boolean mend(ProgressListener progress) throws IOException {
    boolean changed = mendL1();
    long[] clusters = counts.clustersOf(ClusterUse.L2_TABLE);
    long[] table = new long[geometry.clusterBytes() / Long.BYTES];
    for (int index = 0; index < clusters.length; index++) {
      changed |= mendL2(clusters[index], table);
      progress.progress("setting COPIED flags", index + 1, clusters.length);
    }
    return changed;
  }

  private boolean mendL1() throws IOException {
    boolean changed = false;
    long[] piece = new long[Math.min(L1_PIECE_ENTRIES, header.l1Entries())];
    for (int first = 0; first < header.l1Entries(); first += piece.length) {
      int count = Math.min(piece.length, header.l1Entries() - first);
      long[] entries = count == piece.length ? piece : new long[count];
      long at = header.l1Offset() + (long) first * L1Entry.BYTES;
      TableIo.read(file, at, entries, "L1 table");
      boolean pieceChanged = false;
      for (int index = 0; index < count; index++) {
        long before = entries[index];
        entries[index] = mendedL1(before);
        pieceChanged |= entries[index] != before;
      }
      if (pieceChanged) {
        TableIo.write(file, at, entries, 0, count);
        changed = true;
      }
    }
    return changed;
  }

  private long mendedL1(long entry) {
    if (L1Entry.tableOffset(entry) == 0) {
      return entry;
    }
    long cluster = geometry.clusterOf(L1Entry.tableOffset(entry));
    counts.markActiveTable(cluster);
    boolean sole = counts.count(cluster) == 1;
    return sole ? entry | L1Entry.COPIED : entry & ~L1Entry.COPIED;
  }

  private boolean mendL2(long cluster, long[] table) throws IOException {
    boolean active = counts.activeTable(cluster);
    int step = geometry.l2EntryWords(); // an entry's subclusters follow it
    TableIo.read(file, geometry.offsetOf(cluster), table, "L2 table");
    boolean changed = false;
    for (int index = 0; index < table.length; index += step) {
      long before = table[index];
      table[index] = mendedL2(before, active);
      changed |= table[index] != before;
    }
    if (changed) {
      TableIo.write(file, geometry.offsetOf(cluster), table, 0, table.length);
    }
    return changed;
  }

  private long mendedL2(long entry, boolean active) {
    if (L2Entry.compressed(entry)) {
      return entry & ~L2Entry.COPIED;
    }
    long at = L2Entry.hostOffset(entry);
    if (at == 0) {
      // In a data file the first cluster stands at 0.
      return header.hasDataFile() ? entry : entry & ~L2Entry.COPIED;
    }
    if (!active) {
      return entry;
    }
    boolean sole = header.hasDataFile() || counts.count(geometry.clusterOf(at)) == 1;
    return sole ? entry | L2Entry.COPIED : entry & ~L2Entry.COPIED;
  }
}
