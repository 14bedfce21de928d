package io.qnbd.image.mapping;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.refcount.Allocator;
import java.io.IOException;
import java.util.Arrays;

/**
 * Looks at a piece of an L2 table before it is changed, or written through, for the first time
 * since it was read: an entry that a stranger made must not let a guest's write go where metadata
 * or another guest cluster is.
 *
 * <p>What it has let pass stays right: afterwards only the engine changes the entries, to clusters
 * that the allocator hands out, and that one hands out nothing that is counted.
 *
 * <p>Owner: the image's metadata lock.
 */
final class SliceCheck {
  private final Geometry geometry;
  private final Allocator allocator;
  private final Guard guard;
  private final boolean elsewhere;

  /**
   * @param elsewhere whether what entries refer to is in another file, at offsets that {@link
   *     ClusterMap} has compared with the only ones there are, and not counted
   */
  SliceCheck(Geometry geometry, Allocator allocator, boolean elsewhere) {
    this.elsewhere = elsewhere;
    this.geometry = geometry;
    this.allocator = allocator;
    this.guard = allocator.guard();
  }

  /**
   * Throws unless all entries of a slice can be true at once.
   *
   * @param l1Entry names the table
   * @param firstCluster the guest cluster of the first entry
   */
  void require(long l1Entry, long[] entries, long firstCluster) throws IOException {
    if (!guard.comparesCounts()) {
      requireNoMetadata(entries, firstCluster);
      return;
    }
    requireCounted("L2 table", L1Entry.tableOffset(l1Entry), L1Entry.copied(l1Entry), firstCluster);
    if (elsewhere) {
      return;
    }
    long[] owned = new long[entries.length];
    int ownedCount = 0;
    for (int i = 0; i < entries.length; i++) {
      long entry = entries[i];
      long host = L2Entry.hostOffset(entry);
      if (entry == 0) {
        continue;
      }
      requireNoMetadata(entry, firstCluster + i);
      if (L2Entry.compressed(entry)) {
        requireCompressedCounted(entry, firstCluster + i);
      } else if (host != 0) {
        requireCounted("data cluster", host, L2Entry.copied(entry), firstCluster + i);
        if (L2Entry.copied(entry)) {
          owned[ownedCount++] = host;
        }
      }
    }
    requireDistinct(owned, ownedCount, firstCluster);
  }

  /** The L1 entry without a COPIED flag that is not true, where that may be. */
  long withoutStaleFlag(long l1Entry) throws IOException {
    return stale(L1Entry.tableOffset(l1Entry)) ? l1Entry & ~L1Entry.COPIED : l1Entry;
  }

  /** The same for L2 entries; returns whether there was one. */
  boolean clearStaleFlags(long[] entries) throws IOException {
    boolean changed = false;
    for (int i = 0; !elsewhere && i < entries.length; i++) {
      long entry = entries[i];
      if (!L2Entry.compressed(entry) && L2Entry.copied(entry) && stale(L2Entry.hostOffset(entry))) {
        entries[i] = entry & ~L2Entry.COPIED;
        changed = true;
      }
    }
    return changed;
  }

  private boolean stale(long host) throws IOException {
    return host != 0 && Long.compareUnsigned(allocator.count(geometry.clusterOf(host)), 1) > 0;
  }

  private void requireNoMetadata(long[] entries, long firstCluster) throws IOException {
    for (int i = 0; i < entries.length; i++) {
      if (entries[i] != 0 && !elsewhere) {
        requireNoMetadata(entries[i], firstCluster + i);
      }
    }
  }

  private void requireNoMetadata(long entry, long cluster) throws IOException {
    long at = L2Entry.hostOffset(entry);
    long last = at;
    if (L2Entry.compressed(entry)) {
      at = L2Entry.compressedOffset(entry, geometry.clusterBits());
      last = at + L2Entry.compressedBytes(entry, geometry.clusterBits()) - 1;
    } else if (at == 0) {
      return;
    }
    for (long host = geometry.clusterOf(at); host <= geometry.clusterOf(last); host++) {
      if (guard.metadataAt(host)) {
        guard.requireFree(
            String.format("data of guest offset 0x%x", geometry.offsetOf(cluster)), host, 1);
      }
    }
  }

  private void requireCompressedCounted(long entry, long cluster) throws IOException {
    long at = L2Entry.compressedOffset(entry, geometry.clusterBits());
    long last = at + L2Entry.compressedBytes(entry, geometry.clusterBits()) - 1;
    for (long host = geometry.clusterOf(at); host <= geometry.clusterOf(last); host++) {
      requireCounted("compressed cluster", geometry.offsetOf(host), false, cluster);
    }
  }

  private void requireCounted(String what, long host, boolean sole, long cluster)
      throws IOException {
    long count = allocator.count(geometry.clusterOf(host));
    if (sole ? count != 1 : count == 0) {
      throw guard.found(
          String.format(
              "the %s at 0x%x (guest offset 0x%x) has a refcount of %s, but an entry that %s",
              what,
              host,
              geometry.offsetOf(cluster),
              Long.toUnsignedString(count),
              sole ? "says it is the only one" : "refers to it"));
    }
  }

  private void requireDistinct(long[] owned, int count, long firstCluster) throws IOException {
    boolean ascending = true;
    for (int i = 1; i < count && ascending; i++) {
      ascending = owned[i - 1] < owned[i];
    }
    if (ascending) {
      return;
    }
    Arrays.sort(owned, 0, count);
    for (int i = 1; i < count; i++) {
      if (owned[i - 1] == owned[i]) {
        throw guard.found(
            String.format(
                "two L2 entries from guest offset 0x%x on say that the cluster at 0x%x is theirs"
                    + " alone",
                geometry.offsetOf(firstCluster), owned[i]));
      }
    }
  }
}
