package io.qnbd.image.mapping;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.Subclusters;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.refcount.DataClusters;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;

/**
 * What {@link ClusterMap} does with the L2 entries of an image whose clusters have subclusters.
 *
 * <p>A cluster that a guest has for itself may hold only some of its subclusters: the others are
 * zeroes, or in the backing file, and get their bytes when a guest writes to them. Their place in
 * the host cluster holds anything. So an entry may come to say that a subcluster is allocated only
 * when its bytes are written, and reach the file only when they are durable, unless both what the
 * entry said before and the place, durably, read as zeroes.
 *
 * <p>Whether the place of a subcluster in a cluster that the guest has for itself reads as zeroes
 * durably is not remembered; but a hole of the file does: clusters in use are never punched, and
 * one that was punched before it came into use is durably so before its entry is.
 *
 * <p>Both halves of an entry are changed together and lie in one sector, so they are never torn.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class SubclusterMap {
  private final ClusterMap map;
  private final Geometry geometry;
  private final long backingBytes;
  private final DataClusters clusters;
  private final Barrier barrier;

  SubclusterMap(
      ClusterMap map,
      Geometry geometry,
      long backingBytes,
      DataClusters clusters,
      Barrier barrier) {
    this.map = map;
    this.geometry = geometry;
    this.backingBytes = backingBytes;
    this.clusters = clusters;
    this.barrier = barrier;
  }

  // ---- looking up

  /** What subclusters are, as far as they are alike. */
  private enum Kind {
    DATA,
    ZEROES,
    UNALLOCATED;

    /** The subclusters of an entry that are of this kind. */
    int mask(long word) {
      return switch (this) {
        case DATA -> Subclusters.allocated(word);
        case ZEROES -> Subclusters.zero(word);
        case UNALLOCATED -> ~(Subclusters.allocated(word) | Subclusters.zero(word));
      };
    }

    static Kind of(long word, int subcluster) {
      if ((DATA.mask(word) >> subcluster & 1) != 0) {
        return DATA;
      }
      return (ZEROES.mask(word) >> subcluster & 1) != 0 ? ZEROES : UNALLOCATED;
    }
  }

  /** See {@link ClusterMap#lookup}; the run ends with the slice. */
  Mapping lookup(SliceCache.Slice slice, long guestOffset, long bytesMax) throws IOException {
    long cluster = geometry.clusterOf(guestOffset);
    int inCluster = geometry.inCluster(guestOffset);
    int at = wordInSlice(cluster);
    long entry = checked(slice, at, cluster);
    if (L2Entry.compressed(entry)) {
      return map.compressed(entry, Math.min(bytesMax, (long) geometry.clusterBytes() - inCluster));
    }
    int subcluster = geometry.subclusterOf(guestOffset);
    Kind kind = Kind.of(slice.entries[at + 1], subcluster);
    int end = subcluster + Subclusters.run(kind.mask(slice.entries[at + 1]), subcluster);
    long bytes = (long) end * geometry.subclusterBytes() - inCluster;
    for (int ahead = 1;
        end == Subclusters.COUNT && bytes < bytesMax && at + 2 * ahead < slice.entries.length;
        ahead++) {
      int next = at + 2 * ahead;
      if (!continues(entry, slice.entries[next], ahead, kind)) {
        break;
      }
      checked(slice, next, cluster + ahead);
      end = Subclusters.run(kind.mask(slice.entries[next + 1]), 0);
      bytes += (long) end * geometry.subclusterBytes();
    }
    return mapping(kind, entry, inCluster, Math.min(bytes, bytesMax));
  }

  /** Whether a run that began in {@code first} may go on so many clusters ahead. */
  private boolean continues(long first, long entry, int ahead, Kind kind) {
    if (L2Entry.compressed(entry)) {
      return false;
    }
    if (kind == Kind.UNALLOCATED) {
      return true;
    }
    return entry == (L2Entry.hostOffset(first) == 0 ? first : first + geometry.offsetOf(ahead));
  }

  private static Mapping mapping(Kind kind, long entry, int inCluster, long bytes) {
    long host = L2Entry.hostOffset(entry);
    return switch (kind) {
      case DATA -> new Mapping.Data(host + inCluster, L2Entry.copied(entry), bytes);
      case ZEROES ->
          new Mapping.Zeros(host == 0 ? 0 : host + inCluster, L2Entry.copied(entry), bytes);
      case UNALLOCATED -> new Mapping.Unallocated(bytes);
    };
  }

  /** The first half of the entry at {@code at}, both halves of which are sound. */
  private long checked(SliceCache.Slice slice, int at, long cluster) throws IOException {
    long entry = slice.entries[at];
    long word = slice.entries[at + 1];
    if (!L2Entry.compressed(entry)) {
      map.checkStandard(entry, cluster);
    }
    if (!Subclusters.consistent(entry, word)) {
      throw map.found(
          String.format(
              "the L2 entry of guest offset 0x%x is 0x%x with subclusters 0x%x, which"
                  + " contradict each other; run a check",
              geometry.offsetOf(cluster), entry, word));
    }
    return entry;
  }

  /** Throws unless both halves of an entry are sound. */
  void require(SliceCache.Slice slice, int index, long cluster) throws IOException {
    checked(slice, 2 * index, cluster);
  }

  private int wordInSlice(long cluster) {
    return 2 * map.indexInSlice(cluster);
  }

  /** See {@link ClusterMap#countToAllocate}; the L2 table is there. */
  int countToAllocate(SliceCache.Slice slice, long cluster, int max) {
    int at = wordInSlice(cluster);
    int count = 0;
    while (count < max && !ClusterMap.ownsCluster(slice.entries[at + 2 * count])) {
      count++;
    }
    return count;
  }

  /** Whether all of the cluster reads as zeroes by what the tables say. */
  boolean readsAsZeroes(SliceCache.Slice slice, long cluster) {
    int at = wordInSlice(cluster);
    return zeroes(slice.entries[at], slice.entries[at + 1], cluster) == Subclusters.ALL;
  }

  /** Mask of the subclusters that read as zeroes by what the tables say. */
  private int zeroes(long entry, long word, long cluster) {
    if (L2Entry.compressed(entry)) {
      return 0;
    }
    return Subclusters.zero(word) | (Kind.UNALLOCATED.mask(word) & pastBacking(cluster));
  }

  /** Mask of the subclusters below which there is nothing. */
  private int pastBacking(long cluster) {
    long below = backingBytes - geometry.offsetOf(cluster);
    int covered = Math.clamp(Math.ceilDiv(below, geometry.subclusterBytes()), 0, Subclusters.COUNT);
    return Subclusters.mask(covered, Subclusters.COUNT);
  }

  /** Whether the cluster is compressed: its subclusters can't be changed one by one. */
  public boolean compressed(long cluster) throws IOException {
    return !map.tableMissing(cluster) && L2Entry.compressed(entry(cluster));
  }

  /** Whether the guest has a host cluster for itself there. */
  public boolean owned(long cluster) throws IOException {
    return !map.tableMissing(cluster) && ClusterMap.ownsCluster(entry(cluster));
  }

  private long entry(long cluster) throws IOException {
    return checked(map.slice(cluster), wordInSlice(cluster), cluster);
  }

  // ---- writing

  /**
   * What a cluster is before a guest writes to it.
   *
   * @param kept mask of the subclusters whose bytes the image has in another host cluster than the
   *     one that is written to, so that they must be copied
   * @param zeroes mask of those that read as zeroes
   * @param inPlace mask of those whose bytes are where the guest writes
   */
  public record Before(int kept, int zeroes, int inPlace) {}

  /**
   * Where a guest's bytes go.
   *
   * @param run host clusters for guest clusters in a row, all in one slice
   * @param own whether they are the guest's already; else they are new
   * @param fresh whether they are new and read as zeroes, also after a power cut
   * @param first what the first guest cluster is
   * @param last what the last one is
   */
  public record Place(HostRun run, boolean own, boolean fresh, Before first, Before last) {}

  /**
   * Finds or allocates host clusters for as many of {@code count} guest clusters as one run holds,
   * at least one. The L2 table must be prepared. What is allocated belongs to the caller until
   * {@link #written}.
   */
  public Place place(long cluster, long count) throws IOException {
    SliceCache.Slice slice = map.slice(cluster);
    int inSlice = map.clustersInSlice(cluster, count);
    for (int i = 0; i < inSlice; i++) {
      checked(slice, wordInSlice(cluster + i), cluster + i);
    }
    int missing = countToAllocate(slice, cluster, inSlice);
    boolean own = missing == 0;
    HostRun run = own ? ownRun(slice, cluster, inSlice) : clusters.allocate(cluster, missing);
    return new Place(
        run,
        own,
        !own && clusters.fresh(run),
        before(slice, cluster, own),
        before(slice, cluster + run.count() - 1, own));
  }

  private HostRun ownRun(SliceCache.Slice slice, long cluster, int max) {
    int at = wordInSlice(cluster);
    long first = slice.entries[at];
    int count = 1;
    while (count < max && slice.entries[at + 2 * count] == first + geometry.offsetOf(count)) {
      count++;
    }
    return new HostRun(geometry.clusterOf(L2Entry.hostOffset(first)), count);
  }

  private Before before(SliceCache.Slice slice, long cluster, boolean own) {
    int at = wordInSlice(cluster);
    long entry = slice.entries[at];
    long word = slice.entries[at + 1];
    int data = held(entry, word);
    return new Before(own ? 0 : data, zeroes(entry, word, cluster), own ? data : 0);
  }

  /** Mask of the subclusters whose bytes the image itself has. */
  private static int held(long entry, long word) {
    return L2Entry.compressed(entry) ? Subclusters.ALL : Subclusters.allocated(word);
  }

  /**
   * The bytes of {@code [guestOffset, guestOffset + bytes)} are written to their place, with what
   * makes its subclusters whole and with all that had to be copied: makes the entries say so, and
   * releases what they referred to.
   *
   * @param wasZero whether the subclusters that came to be allocated read as zeroes, durably,
   *     before they were written
   */
  public void written(Place place, long guestOffset, long bytes, boolean wasZero)
      throws IOException {
    long cluster = geometry.clusterOf(guestOffset);
    SliceCache.Slice slice = map.slice(cluster);
    long end = guestOffset + bytes;
    for (int i = 0; i < place.run().count(); i++) {
      long start = geometry.offsetOf(cluster + i);
      int first = subclusterIndex(guestOffset - start);
      int last = subclusterIndex(end - 1 - start);
      int touched = Subclusters.mask(first, last + 1);
      int at = wordInSlice(cluster + i);
      long entry = slice.entries[at];
      long word = slice.entries[at + 1];
      int allocated = held(entry, word) | touched;
      int changed = place.own() ? allocated & ~Subclusters.allocated(word) : allocated;
      if (!wasZero || (changed & ~zeroes(entry, word, cluster + i)) != 0) {
        barrier.require();
      }
      slice.entries[at + 1] = Subclusters.of(allocated, Subclusters.zero(word) & ~allocated);
      if (!place.own()) {
        slice.entries[at] = L2Entry.data(geometry.offsetOf(place.run().first() + i));
        map.release(entry);
      }
    }
    map.markDirty(slice);
  }

  /** The subcluster of a byte that may lie before the cluster or behind it: then the nearest. */
  private int subclusterIndex(long inCluster) {
    return Math.clamp(inCluster / geometry.subclusterBytes(), 0, Subclusters.COUNT - 1);
  }

  // ---- zeroing

  /** See {@link ClusterMap#drop}. */
  void drop(SliceCache.Slice slice, long cluster, int count, Dropped how) {
    boolean changed = false;
    for (int i = 0; i < count; i++) {
      changed |= dropOne(slice, cluster + i, Subclusters.ALL, how);
    }
    if (changed) {
      map.markDirty(slice);
    }
  }

  /**
   * Makes subclusters of one cluster, which is not {@link #compressed}, read as zeroes, and
   * releases a host cluster that holds nothing any more. The L2 table must be prepared.
   *
   * @param how kept only if the cluster is {@link #owned}
   */
  public void drop(long cluster, int mask, Dropped how) throws IOException {
    entry(cluster);
    SliceCache.Slice slice = map.slice(cluster);
    if (dropOne(slice, cluster, mask, how)) {
      map.markDirty(slice);
    }
  }

  private boolean dropOne(SliceCache.Slice slice, long cluster, int mask, Dropped how) {
    int at = wordInSlice(cluster);
    long entry = slice.entries[at];
    long word = slice.entries[at + 1];
    boolean kept = how == Dropped.KEPT && ClusterMap.ownsCluster(entry);
    int allocated = L2Entry.compressed(entry) ? 0 : Subclusters.allocated(word) & ~mask;
    int marked = kept ? mask : mask & marksNeeded(entry, word, cluster, how);
    int zero = (Subclusters.zero(word) & ~mask) | marked;
    // A cluster that never held anything stays for the parts that were not dropped.
    boolean emptied =
        !kept && allocated == 0 && (mask == Subclusters.ALL || Subclusters.allocated(word) != 0);
    long newEntry = emptied ? 0 : entry;
    long newWord = Subclusters.of(allocated, zero);
    if (newEntry == entry && newWord == word) {
      return false;
    }
    slice.entries[at] = newEntry;
    slice.entries[at + 1] = newWord;
    if (emptied) {
      map.release(entry);
    }
    return true;
  }

  /** Mask of the subclusters that must be marked if they are to read as zeroes. */
  private int marksNeeded(long entry, long word, long cluster, Dropped how) {
    int covered = ~pastBacking(cluster);
    return how == Dropped.UNMAPPED ? covered : covered | held(entry, word) | Subclusters.zero(word);
  }

  /** See {@link ClusterMap#assignZero}. */
  void assignZero(SliceCache.Slice slice, long cluster, HostRun run) {
    if (!clusters.fresh(run)) {
      barrier.require(); // whoever writes there takes a hole for durable zeroes
    }
    for (int i = 0; i < run.count(); i++) {
      int at = wordInSlice(cluster + i);
      long old = slice.entries[at];
      slice.entries[at] = L2Entry.data(geometry.offsetOf(run.first() + i));
      slice.entries[at + 1] = Subclusters.of(0, Subclusters.ALL);
      map.release(old);
    }
    map.markDirty(slice);
  }
}
