package io.qnbd.image.check;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * What could be done about the damage that a walk over the references finds: entries to be written
 * otherwise, clusters to be copied because they are something else as well, structures to be made
 * anew.
 *
 * <p>Keeps so many entries and copies at most and forgets the rest; a second walk, after these were
 * made, finds those.
 *
 * <p>Owner: one walk. Not thread-safe.
 */
final class Fixes {
  /**
   * An entry of a table, to be written over.
   *
   * @param at where it stands in the file
   */
  record EntryFix(long at, long entry, String what) {}

  /**
   * An L2 entry whose data lies in clusters that are something else as well.
   *
   * @param times how many references the entry counts for
   */
  record CopyFix(long entryAt, long entry, long first, int clusters, int times, String what) {}

  private final int max;
  private final List<EntryFix> entries = new ArrayList<>();
  private final List<CopyFix> copies = new ArrayList<>();
  private final Set<Long> overlapped = new HashSet<>();
  private boolean newRefcounts;
  private boolean forgetBitmaps;
  private boolean completeSnapshots;

  /** Keeps at most {@code max} entries and as many copies. */
  Fixes(int max) {
    this.max = max;
  }

  /** The entry at {@code at} should be {@code fixed}; a later fix of the same entry prevails. */
  @SuppressWarnings("AnnotateFormatMethod") // the annotation would be a dependency
  void entry(long at, long fixed, String format, String here) {
    if (entries.size() < max) {
      entries.add(new EntryFix(at, fixed, String.format(format, here)));
    }
  }

  /** The entry's data should be copied to clusters of its own. */
  void copy(long entryAt, long entry, long first, int clusters, int times, String here) {
    if (copies.size() < max) {
      copies.add(
          new CopyFix(
              entryAt, entry, first, clusters, times, here + ": has clusters of its own now"));
    }
  }

  /** A cluster is two things; nothing may be written into it for either. */
  void overlap(long cluster, ClusterUse one, ClusterUse other) {
    if (overlapped.size() < max) {
      overlapped.add(cluster);
    }
    newRefcounts |= refcounts(one) || refcounts(other);
  }

  private static boolean refcounts(ClusterUse use) {
    return use == ClusterUse.REFCOUNT_TABLE || use == ClusterUse.REFCOUNT_BLOCK;
  }

  /** The refcount table or a block can't be used. */
  void newRefcounts() {
    newRefcounts = true;
  }

  /** The bitmaps can't be believed. */
  void forgetBitmaps() {
    forgetBitmaps = true;
  }

  /** Snapshots lack the extra data that version 3 asks for. */
  void completeSnapshots() {
    completeSnapshots = true;
  }

  List<EntryFix> entries() {
    return entries;
  }

  List<CopyFix> copies() {
    return copies;
  }

  boolean overlapped(long cluster) {
    return overlapped.contains(cluster);
  }

  boolean wantsNewRefcounts() {
    return newRefcounts;
  }

  boolean wantsBitmapsForgotten() {
    return forgetBitmaps;
  }

  boolean wantsSnapshotsCompleted() {
    return completeSnapshots;
  }

  boolean isEmpty() {
    return entries.isEmpty()
        && copies.isEmpty()
        && !newRefcounts
        && !forgetBitmaps
        && !completeSnapshots;
  }
}
