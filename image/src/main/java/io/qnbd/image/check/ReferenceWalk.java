package io.qnbd.image.check;

import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.format.SnapshotTable;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;

/**
 * Counts everything that refers to a cluster: the header, L1 and L2 tables of the disk and of its
 * snapshots, the snapshot table, bitmaps, the refcount structures themselves. Reads only, and no
 * stored refcount decides anything.
 *
 * <p>Owner: one check or one rebuild. Not thread-safe.
 */
final class ReferenceWalk {
  /** What of the heap one walk may take for its counts: a quarter. */
  private static final int HEAP_SHARE = 4;

  private final ImageFile file;
  private final Header header;
  private final SnapshotTable snapshots;
  private final Findings findings = new Findings();
  private final ClusterCounts counts;
  private final References references;
  private final Fixes fixes;
  private final MappingCheck mapping;
  private final RefcountCheck refcounts;

  /**
   * Reads the header and the snapshot table.
   *
   * @throws io.qnbd.image.CorruptImageException when they can't be read at all
   * @throws io.qnbd.image.UnsupportedImageException when the image has features that are unknown
   */
  ReferenceWalk(Storage storage, int pagesMax) throws IOException {
    this(storage, pagesMax, new Fixes(0));
  }

  /** The same, and {@code fixes} is told what could be done about what is found. */
  ReferenceWalk(Storage storage, int pagesMax, Fixes fixes) throws IOException {
    this.fixes = fixes;
    file = ImageFile.of(storage);
    header = file.readHeader();
    header.requireKnownFeatures(file.name());
    snapshots = file.readSnapshots(header);
    counts = new ClusterCounts(pagesMax);
    references = new References(file, header.geometry(), findings, counts, fixes);
    mapping = new MappingCheck(file, header, findings, counts, references, fixes);
    refcounts = new RefcountCheck(file, header, findings, counts, references, fixes);
  }

  /** How many pages of counts this Java may give to one walk. */
  static int pagesMax() {
    long pages = Runtime.getRuntime().maxMemory() / HEAP_SHARE / ClusterCounts.PAGE_BYTES;
    return (int) Math.min(Integer.MAX_VALUE, pages);
  }

  SnapshotTable snapshots() {
    return snapshots;
  }

  Header header() {
    return header;
  }

  Findings findings() {
    return findings;
  }

  /** Complete after {@link #count}. */
  ClusterCounts counts() {
    return counts;
  }

  MappingCheck mapping() {
    return mapping;
  }

  RefcountCheck refcounts() {
    return refcounts;
  }

  void count(ProgressListener progress) throws IOException {
    count(progress, true);
  }

  /**
   * Counts everything or, where new refcount structures are about to replace the old ones, all but
   * these.
   */
  void count(ProgressListener progress, boolean withRefcounts) throws IOException {
    references.add("file", 0, header.clusterBytes(), ClusterUse.HEADER, 1);
    if (header.l1Entries() > 0) {
      mapping.countL1("L1 table", header.l1Offset(), header.l1Entries());
    }
    countSnapshots();
    if (withRefcounts) {
      refcounts.countTables();
    }
    new ExtensionCheck(file, header, findings, references, fixes).count();
    mapping.countL2Tables(progress);
  }

  private void countSnapshots() throws IOException {
    if (header.snapshotCount() == 0) {
      return;
    }
    references.addAligned(
        "header", header.snapshotsOffset(), snapshots.bytes(), ClusterUse.SNAPSHOT_TABLE, 1);
    for (int index = 0; index < snapshots.entries().size(); index++) {
      SnapshotEntry entry = snapshots.entries().get(index);
      if (header.version() != 2 && entry.extraData().remaining() < SnapshotEntry.EXTRA_BYTES_V3) {
        findings.corruption(
            "snapshot %d: %d bytes of extra data, expected at least %d",
            index, entry.extraData().remaining(), SnapshotEntry.EXTRA_BYTES_V3);
        fixes.completeSnapshots();
      }
      String here = "snapshot " + index + ", L1 table";
      if (entry.l1TooLong()) {
        findings.corruption("%s: %d entries are too many", here, entry.l1Entries());
      } else if (entry.l1Entries() > 0) {
        mapping.countL1(here, entry.l1Offset(), (int) entry.l1Entries());
      }
    }
  }
}
