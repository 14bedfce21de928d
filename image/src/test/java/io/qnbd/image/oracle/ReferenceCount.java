package io.qnbd.image.oracle;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One count of all references in an image, compared with its refcounts. The rules are those of the
 * specification and of {@code qemu-img check}: a refcount below the references, a COPIED flag that
 * is not "refcount is one", a reference past the end of the file or into the wrong place is a
 * corruption; a refcount above the references is a leak.
 */
final class ReferenceCount {
  private static final int FINDINGS_MAX = 20;

  private final RawQcow2 image;
  private final boolean staleFlagsAllowed;
  private final int[] references;
  private final List<String> corruptions = new ArrayList<>();

  /**
   * @param staleFlagsAllowed see {@link RawQcow2#checkAllowingStaleFlags}
   */
  ReferenceCount(RawQcow2 image, boolean staleFlagsAllowed) {
    this.image = image;
    this.staleFlagsAllowed = staleFlagsAllowed;
    references = new int[(int) image.clusters(image.file.length())];
  }

  RawQcow2.Findings check() {
    count(0, image.clusterBytes, "header");
    count(
        image.refcountTableOffset,
        (long) image.refcountTableClusters * image.clusterBytes,
        "refcount table");
    for (long block : image.refcountTable()) {
      if (block != 0) {
        count(table(block, "refcount block"), image.clusterBytes, "refcount block");
      }
    }
    if (image.snapshotCount() > 0) {
      count(image.snapshotTableOffset, image.snapshotTableBytes(), "snapshot table");
    }
    count(image.encryptionOffset, image.encryptionBytes, "encryption header");
    RawBitmaps.forEachPlace(image, this::count);
    countL1(image.l1Offset, image.l1Entries, "active");
    for (RawQcow2.Snapshot snapshot : image.snapshots) {
      countL1(snapshot.l1Offset(), snapshot.l1Entries(), "snapshot " + snapshot.name());
    }
    if (image.dirty) {
      return new RawQcow2.Findings(corruptions, 0);
    }
    checkCopied();
    return new RawQcow2.Findings(corruptions, compare());
  }

  private void countL1(long at, int entries, String where) {
    count(at, entries * 8L, where + " L1");
    long[] l1 = image.longs(at, entries);
    for (int i = 0; i < l1.length; i++) {
      if (l1[i] == 0) {
        continue;
      }
      String name = where + " L2 " + i;
      if (RawQcow2.reservedL1(l1[i])) {
        corrupt(name + ": reserved bits in L1 entry " + Long.toHexString(l1[i]));
      }
      long table = table(l1[i] & ~RawQcow2.COPIED, name);
      count(table, image.clusterBytes, name);
      long[] l2 = image.l2(table);
      long[] bitmaps = image.bitmaps(table);
      for (int j = 0; j < l2.length; j++) {
        long cluster = (long) i * l2.length + j;
        String guest = where + " guest cluster " + cluster;
        if (image.hasDataFile) {
          checkFixed(l2[j], cluster, guest);
          continue;
        }
        countL2Entry(l2[j], guest);
        @Nullable String wrong = image.wrongBitmap(l2[j], bitmaps[j]);
        if (wrong != null) {
          corrupt(guest + ": " + wrong + ": " + Long.toHexString(bitmaps[j]));
        }
      }
    }
  }

  /** In a data file each cluster has its place, and is not counted. */
  private void checkFixed(long entry, long cluster, String name) {
    if (image.reservedL2(entry) || (entry & RawQcow2.COMPRESSED) != 0) {
      corrupt(name + ": reserved bits or compressed: " + Long.toHexString(entry));
    }
    long rest = entry & ~RawQcow2.ZERO;
    if (rest != 0 && rest != (cluster * image.clusterBytes | RawQcow2.COPIED)) {
      corrupt(name + ": not in its place: " + Long.toHexString(entry));
    }
  }

  private void countL2Entry(long entry, String name) {
    if (image.reservedL2(entry)) {
      corrupt(name + ": reserved bits in " + Long.toHexString(entry));
    }
    if ((entry & RawQcow2.COMPRESSED) != 0) {
      if ((entry & RawQcow2.COPIED) != 0) {
        corrupt(name + ": compressed and COPIED");
      }
      long[] range = image.compressedRange(entry);
      count(range[0], range[1] - range[0], name);
      return;
    }
    if (image.version < 3 && (entry & RawQcow2.ZERO) != 0) {
      corrupt(name + ": zero flag in version 2");
    }
    long offset = entry & RawQcow2.OFFSET_MASK;
    if (offset != 0) {
      count(table(offset, name), image.clusterBytes, name);
    } else if ((entry & RawQcow2.COPIED) != 0) {
      corrupt(name + ": COPIED without an offset");
    }
  }

  private long table(long offset, String name) {
    if (offset % image.clusterBytes != 0) {
      corrupt(name + ": offset " + offset + " is not aligned");
    }
    return offset;
  }

  private void count(long at, long bytes, String name) {
    if (bytes == 0) {
      return;
    }
    for (long c = at / image.clusterBytes; c <= (at + bytes - 1) / image.clusterBytes; c++) {
      if (c >= references.length) {
        corrupt(
            name + " refers to cluster " + c + " of a file of " + references.length + " clusters");
      } else {
        references[(int) c]++;
      }
    }
  }

  private void checkCopied() {
    long[] l1 = image.l1();
    for (int i = 0; i < l1.length; i++) {
      if (l1[i] == 0) {
        continue;
      }
      checkCopied(l1[i], "L1 entry " + i);
      long[] l2 = image.l2(l1[i] & RawQcow2.OFFSET_MASK);
      for (int j = 0; j < l2.length; j++) {
        boolean data = (l2[j] & RawQcow2.COMPRESSED) == 0;
        if (data && !image.hasDataFile && (l2[j] & RawQcow2.OFFSET_MASK) != 0) {
          checkCopied(l2[j], "guest cluster " + ((long) i * l2.length + j));
        }
      }
    }
  }

  private void checkCopied(long entry, String name) {
    long cluster = (entry & RawQcow2.OFFSET_MASK) / image.clusterBytes;
    boolean copied = (entry & RawQcow2.COPIED) != 0;
    long refcount = image.refcount(cluster);
    if (copied != (refcount == 1) && !(staleFlagsAllowed && harmless(cluster, copied, refcount))) {
      corrupt(name + ": COPIED is " + copied + ", refcount is " + refcount);
    }
  }

  private boolean harmless(long cluster, boolean copied, long refcount) {
    boolean referredToOnce = cluster < references.length && references[(int) cluster] == 1;
    return referredToOnce && refcount == (copied ? 2 : 1);
  }

  private long compare() {
    long leaks = 0;
    for (int c = 0; c < references.length; c++) {
      long refcount = image.refcount(c);
      if (refcount < references[c]) {
        corrupt("cluster " + c + ": refcount " + refcount + ", references " + references[c]);
      } else if (refcount > references[c]) {
        leaks++;
      }
    }
    // Counted past the end of the file: the file will grow over them, and then they show.
    long end = image.countableClusters();
    for (long c = references.length; c < end; c++) {
      leaks += image.refcount(c) == 0 ? 0 : 1;
    }
    return leaks;
  }

  private void corrupt(String what) {
    if (corruptions.size() < FINDINGS_MAX) {
      corruptions.add(what);
    }
  }
}
