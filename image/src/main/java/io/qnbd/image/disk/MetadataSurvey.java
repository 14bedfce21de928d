package io.qnbd.image.disk;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.format.SnapshotTable;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.MetadataUse;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * Tells an image's {@link Guard} where its metadata is, by the tables that are in memory anyway
 * when it is opened for writing. What a table names that can't be is left out: it will be found
 * when somebody goes there.
 */
final class MetadataSurvey {
  private final Guard guard;
  private final Header header;
  private final Geometry geometry;
  private final long fileBytes;

  private MetadataSurvey(Guard guard, Header header, long fileBytes) {
    this.guard = guard;
    this.header = header;
    this.geometry = header.geometry();
    this.fileBytes = fileBytes;
  }

  /** A guard that knows all that may be known of the image. */
  static Guard guard(
      LatchedStorage file,
      Header header,
      OverlapCheck level,
      long[] l1,
      long[] refcountTable,
      List<SnapshotEntry> snapshots)
      throws IOException {
    boolean singles = level.compareTo(OverlapCheck.CACHED) >= 0;
    Guard guard =
        Guard.ofWriter(
            file,
            header.version() >= 3,
            level,
            header.clusterBits(),
            singles ? used(l1) + used(refcountTable) : 0);
    MetadataSurvey survey = new MetadataSurvey(guard, header, file.length());
    survey.noteHeader();
    survey.noteSnapshots(file.name(), snapshots);
    survey.noteExtensions();
    if (singles) {
      for (long entry : refcountTable) {
        survey.noteCluster(MetadataUse.REFCOUNT_BLOCK, entry);
      }
      for (long entry : l1) {
        survey.noteCluster(MetadataUse.L2_TABLE, L1Entry.tableOffset(entry));
      }
    }
    return guard;
  }

  private static int used(long[] table) {
    int count = 0;
    for (long entry : table) {
      if (entry != 0) {
        count++;
      }
    }
    return count;
  }

  private void noteHeader() {
    guard.noteFound(MetadataUse.HEADER, 0, 1);
    note(MetadataUse.L1_TABLE, header.l1Offset(), (long) header.l1Entries() * L1Entry.BYTES);
    note(
        MetadataUse.REFCOUNT_TABLE,
        header.refcountTableOffset(),
        geometry.offsetOf(header.refcountTableClusters()));
  }

  private void noteSnapshots(String fileName, List<SnapshotEntry> snapshots) {
    if (snapshots.isEmpty()) {
      return;
    }
    note(
        MetadataUse.SNAPSHOT_TABLE, header.snapshotsOffset(), new SnapshotTable(snapshots).bytes());
    for (int index = 0; index < snapshots.size(); index++) {
      SnapshotEntry entry = snapshots.get(index);
      try {
        entry.requireTable(fileName, index, header.clusterBytes(), fileBytes);
      } catch (CorruptImageException _) {
        continue; // whoever uses the snapshot is told
      }
      note(MetadataUse.SNAPSHOT_L1_TABLE, entry.l1Offset(), entry.l1Entries() * L1Entry.BYTES);
    }
  }

  private void noteExtensions() {
    HeaderExtension encryption = header.extension(HeaderExtension.ENCRYPTION_HEADER);
    if (encryption != null && encryption.data().remaining() == 2 * Long.BYTES) {
      ByteBuffer place = encryption.data();
      note(MetadataUse.ENCRYPTION_HEADER, place.getLong(0), place.getLong(Long.BYTES));
    }
    HeaderExtension bitmaps = header.extension(HeaderExtension.BITMAPS);
    boolean consistent = (header.autoclearFeatures() & FeatureBits.BITMAPS) != 0;
    if (bitmaps != null && consistent && bitmaps.data().remaining() == BitmapsExtension.BYTES) {
      ByteBuffer place = bitmaps.data();
      note(
          MetadataUse.BITMAPS,
          place.getLong(BitmapsExtension.DIRECTORY_OFFSET_AT),
          place.getLong(BitmapsExtension.DIRECTORY_BYTES_AT));
    }
  }

  /** A structure of that many bytes, if it lies in the file. */
  private void note(MetadataUse use, long at, long bytes) {
    if (bytes > 0 && bytes <= fileBytes && inFile(at)) {
      guard.noteFound(use, geometry.clusterOf(at), geometry.clustersFor(bytes));
    }
  }

  private void noteCluster(MetadataUse use, long at) {
    if (inFile(at)) {
      guard.noteFound(use, geometry.clusterOf(at), 1);
    }
  }

  private boolean inFile(long at) {
    return at > 0 && at < fileBytes && at <= HeaderRules.OFFSET_MAX && geometry.inCluster(at) == 0;
  }
}
