package io.qnbd.image.check;

import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.Subclusters;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Walks L1 and L2 tables.
 *
 * <p>First every L1 table names its L2 tables, then every L2 table is read once, however many
 * references it has, and what it references counts that many times. So the reading is bounded by
 * the file's length, also where an image has a million entries for one table.
 *
 * <p>Owner: one check. Not thread-safe.
 */
final class MappingCheck {
  private static final int PIECE_BYTES = 64 << 10;

  /** The upper half of an extended L2 entry's second word (qcow2 specification). */
  private static final long ALL_SUBCLUSTERS_ZERO = 0xffff_ffff_0000_0000L;

  private final ImageFile file;
  private final Header header;
  private final Geometry geometry;
  private final Findings findings;
  private final ClusterCounts counts;
  private final References references;
  private final Fixes fixes;
  private final int l2EntryBytes;
  private long allocatedClusters;
  private long compressedClusters;

  MappingCheck(
      ImageFile file,
      Header header,
      Findings findings,
      ClusterCounts counts,
      References references,
      Fixes fixes) {
    this.fixes = fixes;
    this.file = file;
    this.header = header;
    this.geometry = header.geometry();
    this.findings = findings;
    this.counts = counts;
    this.references = references;
    this.l2EntryBytes = geometry.l2EntryBytes();
  }

  /** Guest clusters of the active disk that have bytes in the image; known after the flags. */
  long allocatedClusters() {
    return allocatedClusters;
  }

  long compressedClusters() {
    return compressedClusters;
  }

  /** Counts an L1 table and the L2 tables that it names. */
  void countL1(String from, long at, int entries) throws IOException {
    References.Place place =
        references.addAligned(from, at, (long) entries * L1Entry.BYTES, ClusterUse.L1_TABLE, 1);
    if (place == References.Place.GOOD) {
      forEachL1Entry(
          at,
          entries,
          (index, entry) -> countL1Entry(from, at + (long) index * L1Entry.BYTES, index, entry));
    }
  }

  private interface L1Visitor {
    void visit(int index, long entry) throws IOException;
  }

  private void forEachL1Entry(long at, int entries, L1Visitor visitor) throws IOException {
    ByteBuffer piece = ByteBuffer.allocate(PIECE_BYTES);
    int entriesPerPiece = PIECE_BYTES / L1Entry.BYTES;
    for (int index = 0; index < entries; index++) {
      int inPiece = index % entriesPerPiece;
      if (inPiece == 0) {
        int bytes = Math.min(entriesPerPiece, entries - index) * L1Entry.BYTES;
        file.read(at + (long) index * L1Entry.BYTES, piece.clear().slice(0, bytes));
      }
      visitor.visit(index, piece.getLong(inPiece * L1Entry.BYTES));
    }
  }

  private void countL1Entry(String from, long entryAt, int index, long entry) throws IOException {
    if (entry == 0) {
      return;
    }
    String here = from + ", entry " + index;
    if (L1Entry.reservedBits(entry) != 0) {
      findings.corruption("%s: 0x%016x has reserved bits set", here, entry);
      fixes.entry(
          entryAt, entry & ~L1Entry.reservedBits(entry), "%s: its reserved bits are cleared", here);
    }
    if (L1Entry.tableOffset(entry) != 0 || L1Entry.copied(entry)) {
      References.Place place =
          references.addAligned(
              here, L1Entry.tableOffset(entry), geometry.clusterBytes(), ClusterUse.L2_TABLE, 1);
      if (place != References.Place.GOOD) {
        fixes.entry(entryAt, 0, "%s: it named no L2 table and names none any more", here);
      }
    }
  }

  /** Counts what all L2 tables name; every L1 table was counted before. */
  void countL2Tables(ProgressListener progress) throws IOException {
    ByteBuffer table = ByteBuffer.allocate(geometry.clusterBytes());
    long[] clusters = counts.clustersOf(ClusterUse.L2_TABLE);
    int done = 0;
    for (long cluster : clusters) {
      long at = geometry.offsetOf(cluster);
      int times = counts.count(cluster);
      file.read(at, table);
      for (int in = 0; in < table.limit(); in += l2EntryBytes) {
        long entry = table.getLong(in);
        long subclusters = header.extendedL2() ? table.getLong(in + L2Entry.BYTES) : 0;
        if ((entry != 0 || subclusters != 0) && !countPlain(entry, subclusters, times)) {
          countL2Entry(at, in / l2EntryBytes, entry, subclusters, times);
        }
      }
      done++;
      progress.progress("counting references", done, clusters.length);
    }
  }

  /**
   * Counts what an entry refers to if there is nothing to say about it, which is so for nearly all
   * of what may be hundreds of millions.
   *
   * @return false if nothing was counted, because there may be something to say
   */
  private boolean countPlain(long entry, long subclusters, int times) throws IOException {
    long at;
    int bytes;
    if (L2Entry.compressed(entry)) {
      at = L2Entry.compressedOffset(entry, geometry.clusterBits());
      bytes = L2Entry.compressedBytes(entry, geometry.clusterBits());
      if (L2Entry.copied(entry) || subclusters != 0) {
        return false;
      }
    } else {
      at = L2Entry.hostOffset(entry);
      bytes = geometry.clusterBytes();
      boolean zeroFlagKnown = header.version() != 2 && !header.extendedL2();
      if (at == 0
          || geometry.inCluster(at) != 0
          || L2Entry.reservedBits(entry, zeroFlagKnown) != 0
          || (Subclusters.allocated(subclusters) & Subclusters.zero(subclusters)) != 0) {
        return false;
      }
    }
    return !header.hasDataFile() && references.addPlain(at, bytes, ClusterUse.DATA, times);
  }

  private void countL2Entry(long tableAt, int index, long entry, long subclusters, int times)
      throws IOException {
    String here = String.format("L2 table 0x%x, entry %d", tableAt, index);
    long entryAt = tableAt + (long) index * l2EntryBytes;
    if (L2Entry.compressed(entry)) {
      countCompressed(here, entryAt, entry, subclusters, times);
      return;
    }
    boolean zeroFlagKnown = header.version() != 2 && !header.extendedL2();
    long reserved = L2Entry.reservedBits(entry, zeroFlagKnown);
    if (reserved != 0) {
      findings.corruption("%s: 0x%016x has reserved bits set", here, entry);
      fixes.entry(entryAt, entry & ~reserved, "%s: its reserved bits are cleared", here);
    }
    if ((Subclusters.allocated(subclusters) & Subclusters.zero(subclusters)) != 0) {
      findings.corruption("%s: subclusters 0x%016x are both allocated and zero", here, subclusters);
      fixes.entry(
          entryAt + L2Entry.BYTES,
          subclusters & ~(subclusters >>> 32),
          "%s: subclusters that were marked as zeroes, too, are zeroes now",
          here);
    }
    long at = L2Entry.hostOffset(entry);
    if (at == 0 && Subclusters.allocated(subclusters) != 0 && !header.hasDataFile()) {
      findings.corruption("%s: subclusters 0x%016x without a host cluster", here, subclusters);
      fixes.entry(
          entryAt + L2Entry.BYTES,
          Subclusters.of(0, Subclusters.allocated(subclusters) | Subclusters.zero(subclusters)),
          "%s: subclusters that had no host cluster read as zeroes from now on",
          here);
    }
    if (header.hasDataFile()) {
      return; // clusters of the data file are not counted
    }
    if (at != 0) {
      switch (references.addAligned(here, at, geometry.clusterBytes(), ClusterUse.DATA, times)) {
        case GOOD -> {}
        case TAKEN -> {
          // LUKS encrypts by the place in the file: without the passphrase no cluster can move.
          if (header.cryptMethod() != Header.CRYPT_LUKS) {
            fixes.copy(entryAt, entry & ~reserved, geometry.clusterOf(at), 1, times, here);
          }
        }
        case NOWHERE -> fixNowhere(entryAt, here);
      }
    } else if (L2Entry.copied(entry)) {
      findings.wrongFlag("%s: 0x%016x is flagged as sole owner of nothing", here, entry);
    }
  }

  /** What the entry named is not in the file, so there is nothing to lose. */
  private void fixNowhere(long entryAt, String here) {
    String what = "%s: its data is not in the file; it reads as zeroes from now on";
    if (header.extendedL2()) {
      fixes.entry(entryAt, 0, what, here);
      fixes.entry(entryAt + L2Entry.BYTES, ALL_SUBCLUSTERS_ZERO, what, here);
    } else if (header.version() == 2) {
      fixes.entry(entryAt, 0, "%s: its data is not in the file; it is unallocated now", here);
    } else {
      fixes.entry(entryAt, L2Entry.ZERO, what, here);
    }
  }

  private void countCompressed(String here, long entryAt, long entry, long subclusters, int times)
      throws IOException {
    if (L2Entry.copied(entry)) {
      findings.wrongFlag("%s: compressed, but flagged as sole owner", here);
    }
    if (subclusters != 0) {
      findings.corruption("%s: compressed, but has subclusters 0x%016x", here, subclusters);
      fixes.entry(entryAt + L2Entry.BYTES, 0, "%s: compressed, and has no subclusters now", here);
    }
    if (header.hasDataFile()) {
      findings.corruption("%s: compressed, in an image with an external data file", here);
      fixNowhere(entryAt, here);
      return;
    }
    long at = L2Entry.compressedOffset(entry, geometry.clusterBits());
    int bytes = L2Entry.compressedBytes(entry, geometry.clusterBits());
    switch (references.add(here, at, bytes, ClusterUse.DATA, times)) {
      case GOOD -> {}
      case TAKEN -> {
        long first = geometry.clusterOf(at);
        int clusters = (int) (geometry.clusterOf(at + bytes - 1) - first + 1);
        fixes.copy(entryAt, entry, first, clusters, times, here);
      }
      case NOWHERE -> fixNowhere(entryAt, here);
    }
  }

  /**
   * Checks that the active tables' COPIED flags say what the stored refcounts say, and counts the
   * guest clusters. Inactive tables need not be accurate.
   */
  void checkFlags() throws IOException {
    forEachL1Entry(header.l1Offset(), header.l1Entries(), this::checkL1Flag);
  }

  private void checkL1Flag(int index, long entry) throws IOException {
    long at = L1Entry.tableOffset(entry);
    if (at == 0 || geometry.inCluster(at) != 0) {
      return;
    }
    long cluster = geometry.clusterOf(at);
    if (counts.count(cluster) == 0) {
      return;
    }
    if (L1Entry.copied(entry) != counts.storedOne(cluster)) {
      findings.wrongFlag(
          "L1 table, entry %d: 0x%016x %s, but the L2 table's refcount %s one",
          index,
          entry,
          L1Entry.copied(entry) ? "has COPIED set" : "has COPIED clear",
          counts.storedOne(cluster) ? "is" : "is not");
    }
    if (counts.markActiveTable(cluster)) {
      checkL2Flags(at);
    }
  }

  private void checkL2Flags(long tableAt) throws IOException {
    ByteBuffer table = file.read(tableAt, geometry.clusterBytes());
    for (int in = 0; in < table.limit(); in += l2EntryBytes) {
      long entry = table.getLong(in);
      if (L2Entry.compressed(entry)) {
        allocatedClusters++;
        compressedClusters++;
        continue;
      }
      long at = L2Entry.hostOffset(entry);
      if (at == 0 && !(header.hasDataFile() && L2Entry.copied(entry))) {
        continue;
      }
      allocatedClusters++;
      if (!header.hasDataFile() && counts.count(geometry.clusterOf(at)) == 0) {
        continue; // past the end of the file: found before
      }
      boolean sole = header.hasDataFile() || counts.storedOne(geometry.clusterOf(at));
      if (L2Entry.copied(entry) != sole) {
        findings.wrongFlag(
            "L2 table 0x%x, entry %d: 0x%016x %s, but the cluster's refcount %s one",
            tableAt,
            in / l2EntryBytes,
            entry,
            L2Entry.copied(entry) ? "has COPIED set" : "has COPIED clear",
            sole ? "is" : "is not");
      }
    }
  }
}
