package io.qnbd.image.check;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.format.SnapshotTable;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/**
 * One round of repairing an image's tables: makes the {@link Fixes} that a walk found.
 *
 * <pre>
 *   1. sync    what was read
 *   2. copy    clusters that are two things, behind the end of the file
 *   3. count   all references, those to the copies too: the counts rise, or, where the refcount
 *              structures are damaged or too short, new ones are written behind the file's end and
 *              one write of the header makes them the valid ones            durable before
 *   4. write   entries, each in a write within its sector                   durable before
 *   5. header  the completed snapshot table; bitmaps that nobody believes
 * </pre>
 *
 * <p>A cut in the midst of it leaves entries that are as they were or as they should be, each with
 * what it refers to there and counted. Counts that are too high are the next rebuild's.
 *
 * <p>Into a cluster that is two things nothing is written but the entries that part the two: the
 * others are mended in a later round.
 *
 * <p>Owner: one round. Not thread-safe.
 */
final class TableRepair {
  private final Storage file;
  private final ProgressListener progress;
  private final Consumer<String> notes;
  private final Header header;
  private final Geometry geometry;
  private ReferenceWalk walk;
  private Fixes fixes;
  private ClusterCounts counts;
  private final List<Long> copyTargets = new ArrayList<>();
  private long next;
  private long snapshotsAt;

  /**
   * A round over an image that was walked.
   *
   * @param walk complete
   * @param notes told what is done
   */
  TableRepair(
      Storage file,
      ReferenceWalk walk,
      Fixes fixes,
      Consumer<String> notes,
      ProgressListener progress) {
    this.file = file;
    this.walk = walk;
    this.fixes = fixes;
    this.notes = notes;
    this.progress = progress;
    this.header = walk.header();
    this.geometry = header.geometry();
    this.counts = walk.counts();
  }

  /** Mends what there is to mend; returns whether there was anything. */
  boolean run() throws IOException {
    Rebuild rebuild = new Rebuild(file, walk, progress);
    plan();
    boolean rewrite = fixes.wantsNewRefcounts() || !rebuild.countableAsIs();
    if (fixes.isEmpty() && !rewrite) {
      return false;
    }
    boolean bitmaps = fixes.wantsBitmapsForgotten();
    if (rewrite) {
      walkWithoutRefcounts();
      plan();
    }
    Rebuild.requireFewEnough(file, geometry, counts);
    file.sync();
    makeCopies();
    writeSnapshots();
    if (rewrite) {
      rewriteRefcounts(rebuild);
    } else {
      rebuild.raise(rebuild.openBlocks());
    }
    boolean written = writeEntries();
    switchSnapshots();
    if (bitmaps) {
      forgetBitmaps();
    }
    return written || rewrite || bitmaps || snapshotsAt != 0;
  }

  /** What overlaps the old refcount structures is theirs no longer. */
  private void walkWithoutRefcounts() throws IOException {
    fixes = new Fixes(Repair.FIXES_PER_ROUND);
    walk = new ReferenceWalk(file, ReferenceWalk.pagesMax(), fixes);
    walk.count(progress, false);
    counts = walk.counts();
    copyTargets.clear();
    snapshotsAt = 0;
  }

  /** Gives everything that is to be written a place that nobody has, and counts it. */
  private void plan() throws IOException {
    next = Math.max(geometry.clustersFor(file.length()), counts.end());
    for (Fixes.CopyFix copy : fixes.copies()) {
      copyTargets.add(next);
      for (int i = 0; i < copy.clusters(); i++) {
        counts.add(next++, ClusterUse.DATA, copy.times());
      }
    }
    if (fixes.wantsSnapshotsCompleted()) {
      snapshotsAt = next;
      for (long i = 0; i < geometry.clustersFor(completeSnapshots().bytes()); i++) {
        counts.add(next++, ClusterUse.SNAPSHOT_TABLE, 1);
      }
    }
  }

  private void makeCopies() throws IOException {
    int index = 0;
    for (Fixes.CopyFix copy : fixes.copies()) {
      long target = copyTargets.get(index++);
      for (int i = 0; i < copy.clusters(); i++) {
        ByteBuffer cluster = ByteBuffer.allocate(geometry.clusterBytes());
        file.read(geometry.offsetOf(copy.first() + i), cluster);
        file.write(geometry.offsetOf(target + i), cluster.clear());
      }
      progress.progress("copying clusters", index, fixes.copies().size());
    }
    long end = geometry.offsetOf(next);
    if (file.length() < end) {
      file.setLength(end);
    }
  }

  private void rewriteRefcounts(Rebuild rebuild) throws IOException {
    RefcountRewrite.Table table =
        RefcountRewrite.write(file, geometry, rebuild.countsAtLeast(counts), next);
    rebuild.writeTableFields(table.offset(), table.clusters());
    file.sync();
    notes.accept("the refcount table and its blocks were written anew");
  }

  private boolean writeEntries() throws IOException {
    boolean written = !fixes.copies().isEmpty();
    if (!fixes.entries().isEmpty()) {
      distrustBitmaps();
    }
    for (Fixes.EntryFix fix : fixes.entries()) {
      if (!fixes.overlapped(geometry.clusterOf(fix.at()))) {
        writeEntry(fix.at(), fix.entry(), fix.what());
        written = true;
      }
    }
    int index = 0;
    for (Fixes.CopyFix copy : fixes.copies()) {
      long moved = geometry.offsetOf(copyTargets.get(index++) - copy.first());
      long entry = (copy.entry() & ~L2Entry.COPIED) + moved;
      if (!L2Entry.compressed(entry) && copy.times() == 1) {
        entry |= L2Entry.COPIED;
      }
      writeEntry(copy.entryAt(), entry, copy.what());
    }
    file.sync();
    return written;
  }

  private void writeEntry(long at, long entry, String what) throws IOException {
    file.write(at, ByteBuffer.allocate(Long.BYTES).putLong(entry).flip());
    notes.accept(what);
  }

  // ---- what the header names

  private SnapshotTable completeSnapshots() {
    List<SnapshotEntry> entries = new ArrayList<>();
    for (SnapshotEntry entry : walk.snapshots().entries()) {
      entries.add(entry.completed(header.virtualBytes()));
    }
    return new SnapshotTable(entries);
  }

  private void writeSnapshots() throws IOException {
    if (snapshotsAt != 0) {
      file.write(geometry.offsetOf(snapshotsAt), completeSnapshots().encode());
      file.setLength(Math.max(file.length(), geometry.offsetOf(next)));
    }
  }

  private void switchSnapshots() throws IOException {
    if (snapshotsAt != 0) {
      ByteBuffer fields = ByteBuffer.allocate(Integer.BYTES + Long.BYTES);
      fields.putInt(header.snapshotCount()).putLong(geometry.offsetOf(snapshotsAt)).flip();
      file.write(HeaderLayout.SNAPSHOT_COUNT_AT, fields);
      file.sync();
      notes.accept("the snapshots have the extra data that version 3 asks for");
    }
  }

  /**
   * An entry that is mended may change what the disk reads as, which bitmaps that record missed.
   */
  private void distrustBitmaps() throws IOException {
    List<Long> flags;
    try {
      flags = DirtyBitmaps.recordingFlags(ImageFile.of(file), header);
    } catch (CorruptImageException e) {
      return; // it says so itself when it has been found
    }
    for (long at : flags) {
      if (fixes.overlapped(geometry.clusterOf(at))) {
        forgetBitmaps();
        return;
      }
    }
    for (long at : flags) {
      ByteBuffer field = ImageFile.of(file).read(at, Integer.BYTES);
      file.write(at, field.putInt(0, field.getInt(0) | BitmapEntry.IN_USE).clear());
    }
    if (!flags.isEmpty()) {
      file.sync();
      notes.accept("the bitmaps that record count as inconsistent now: they missed the repair");
    }
  }

  private void forgetBitmaps() throws IOException {
    long features = header.autoclearFeatures() & ~FeatureBits.BITMAPS;
    file.write(HeaderLayout.AUTOCLEAR_AT, ByteBuffer.allocate(Long.BYTES).putLong(features).flip());
    file.sync();
    notes.accept("the persistent bitmaps are damaged and count as inconsistent now");
  }
}
