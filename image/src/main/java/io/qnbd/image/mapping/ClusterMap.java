package io.qnbd.image.mapping;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.DataClusters;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The active L1 table and its L2 tables (qcow2 specification, "Cluster mapping"): looks guest
 * clusters up and points them elsewhere.
 *
 * <p>A change is made in memory only and reaches the file with a commit, in the order that {@link
 * PendingTables} documents. Entries may be set only for clusters whose data is already written, so
 * that a commit may take the tables at any moment.
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>An L2 table is changed only if its L1 entry has COPIED set; {@link #prepare} copies one
 *       that a snapshot shares.
 *   <li>A new L2 table's cluster reads, durably before its L1 entry is written, as zeroes or as the
 *       table that it replaces, so that an entry that a power cut loses is the old one.
 *   <li>Every reference that an entry loses goes to {@link DataClusters#release} or, of a table,
 *       {@link Allocator#release}, once.
 *   <li>In an external data file each cluster's place is its own offset, and zeroes are never taken
 *       for allocated, so that what was there before is overwritten.
 * </ul>
 *
 * <p>Owner: the image's metadata lock.
 */
public final class ClusterMap {
  /** L1 entries are written by the sector, so that neighbours share a write. */
  private static final int L1_SECTOR_ENTRIES = 512 / L1Entry.BYTES;

  /** One lookup goes over so many missing L2 tables: some 10 us of the metadata lock. */
  private static final int MISSING_TABLES_MAX = 1 << 14;

  private final Storage file;
  private final Geometry geometry;
  private final boolean zeroFlagKnown;

  /** The same, but for images that have the flag for subclusters instead. */
  private final boolean zeroFlagInEntry;

  private long l1Offset;
  private long[] l1;
  private final BitSet dirtyL1Sectors = new BitSet();
  private final SliceCache slices;
  private final Allocator allocator;
  private final DataClusters clusters;
  private final Barrier barrier;
  private final Guard guard;
  private final SliceCheck check;

  /** Reads and changes entries that have a second half; null where they have none. */
  private final @Nullable SubclusterMap subclusters;

  /**
   * What the header and the user say about the tables.
   *
   * @param zeroFlagKnown whether entries have a zero flag: version 3 on
   * @param backingBytes how much of the disk reads from a backing file where it is unallocated
   * @param l2CacheBytes the most memory for cached L2 slices
   */
  public record Options(boolean zeroFlagKnown, long backingBytes, long l2CacheBytes) {}

  /** Hears of compressed clusters that entries have lost. The metadata lock is held. */
  @FunctionalInterface
  public interface CompressedReleased {
    void at(long hostOffset, int bytes);
  }

  private CompressedReleased compressedReleased = (_, _) -> {};
  private final long backingBytes;
  private long fileBytesSeen;

  public ClusterMap(
      Storage file,
      Geometry geometry,
      long l1Offset,
      long[] l1,
      Options options,
      Allocator allocator,
      DataClusters clusters,
      Barrier barrier) {
    this.file = file;
    this.geometry = geometry;
    this.l1Offset = l1Offset;
    this.l1 = l1;
    this.zeroFlagKnown = options.zeroFlagKnown();
    this.zeroFlagInEntry = zeroFlagKnown && !geometry.extendedL2();
    this.backingBytes = options.backingBytes();
    this.slices = new SliceCache(file, geometry.sliceWords(), options.l2CacheBytes());
    this.allocator = allocator;
    this.clusters = clusters;
    this.barrier = barrier;
    this.guard = allocator.guard();
    this.check = new SliceCheck(geometry, allocator, clusters.fixed());
    this.subclusters =
        geometry.extendedL2()
            ? new SubclusterMap(this, geometry, options.backingBytes(), clusters, barrier)
            : null;
  }

  /** The map by subclusters; null for an image whose clusters have none. */
  public @Nullable SubclusterMap subclusters() {
    return subclusters;
  }

  /** Whom to tell, before the host cluster is released, that a compressed cluster was replaced. */
  public void onCompressedReleased(CompressedReleased listener) {
    compressedReleased = listener;
  }

  /** Whether so much is dirty that writers should wait for a commit. */
  public boolean crowded() {
    return slices.crowded();
  }

  // ---- looking up

  /**
   * What is at {@code guestOffset}, and how far, up to {@code bytesMax}, it goes on like that. A
   * run ends with its L2 slice at the latest, but one without an L2 table goes on over the tables
   * that are missing after it.
   */
  public Mapping lookup(long guestOffset, long bytesMax) throws IOException {
    return lookup(guestOffset, bytesMax, false);
  }

  /** The same for somebody who may write where it says, if that is in place. */
  public Mapping lookupToWrite(long guestOffset, long bytesMax) throws IOException {
    return lookup(guestOffset, bytesMax, true);
  }

  private Mapping lookup(long guestOffset, long bytesMax, boolean toWrite) throws IOException {
    long cluster = geometry.clusterOf(guestOffset);
    long table = tableOffset(cluster);
    if (table == 0) {
      return new Mapping.Unallocated(missingBytes(guestOffset, bytesMax));
    }
    SliceCache.Slice slice = toWrite ? checkedSlice(table, cluster) : slice(table, cluster);
    return lookupIn(slice, guestOffset, bytesMax);
  }

  /**
   * The same if it can be told without reading a table, else null.
   *
   * @param toWrite whether the caller may write where it says; then also null before somebody has
   *     waited for {@link #lookupToWrite}
   */
  public @Nullable Mapping lookupCached(long guestOffset, long bytesMax, boolean toWrite)
      throws IOException {
    long cluster = geometry.clusterOf(guestOffset);
    long table = tableOffset(cluster);
    if (table == 0) {
      return new Mapping.Unallocated(missingBytes(guestOffset, bytesMax));
    }
    SliceCache.Slice slice = slices.cached(sliceOffset(table, cluster));
    return slice == null || (toWrite && !slice.checked)
        ? null
        : lookupIn(slice, guestOffset, bytesMax);
  }

  private Mapping lookupIn(SliceCache.Slice slice, long guestOffset, long bytesMax)
      throws IOException {
    if (subclusters != null) {
      return subclusters.lookup(slice, guestOffset, bytesMax);
    }
    long cluster = geometry.clusterOf(guestOffset);
    int inCluster = geometry.inCluster(guestOffset);
    int index = indexInSlice(cluster);
    long entry = slice.entries[index];
    if (L2Entry.compressed(entry)) {
      return compressed(entry, Math.min(bytesMax, (long) geometry.clusterBytes() - inCluster));
    }
    checkStandard(entry, cluster);
    long bytes = (long) geometry.clusterBytes() - inCluster;
    for (int next = index + 1;
        bytes < bytesMax && next < slice.entries.length && continues(entry, slice, next, index);
        next++) {
      checkStandard(slice.entries[next], cluster + next - index);
      bytes += geometry.clusterBytes();
    }
    return standard(entry, inCluster, Math.min(bytes, bytesMax));
  }

  /** How much there is, up to {@code bytesMax}, before the next L2 table. */
  private long missingBytes(long guestOffset, long bytesMax) {
    long coverage = geometry.l2CoverageBytes();
    int index = (int) geometry.l1Index(geometry.clusterOf(guestOffset));
    int last = Math.min(l1.length, index + MISSING_TABLES_MAX);
    long bytes = coverage - (guestOffset & (coverage - 1));
    for (int next = index + 1; bytes < bytesMax && next < last && l1[next] == 0; next++) {
      bytes += coverage;
    }
    return Math.min(bytes, bytesMax);
  }

  /**
   * All runs from {@code guestOffset} on, up to {@code bytesMax}, that begin in its L2 slice: more
   * than one for each time that the lock is taken.
   */
  public List<Mapping> lookupSlice(long guestOffset, long bytesMax) throws IOException {
    long sliceBytes = geometry.offsetOf(geometry.sliceEntries());
    long end = Math.min(bytesMax, sliceBytes - (guestOffset & (sliceBytes - 1)));
    List<Mapping> runs = new ArrayList<>();
    for (long done = 0; done < end; ) {
      Mapping run = lookup(guestOffset + done, bytesMax - done);
      runs.add(run);
      done += run.bytes();
    }
    return runs;
  }

  /** Whether the entry at {@code next} goes on where the run that began at {@code index} ends. */
  private boolean continues(long first, SliceCache.Slice slice, int next, int index) {
    long entry = slice.entries[next];
    if (L2Entry.compressed(entry)) {
      return false;
    }
    if (L2Entry.hostOffset(first) == 0 && !L2Entry.copied(first)) {
      return entry == first;
    }
    return entry == first + geometry.offsetOf(next - index);
  }

  private Mapping standard(long entry, int inCluster, long bytes) {
    long host = L2Entry.hostOffset(entry);
    boolean sole = L2Entry.copied(entry);
    if (L2Entry.zero(entry)) {
      boolean nowhere = host == 0 || clusters.fixed();
      return new Mapping.Zeros(nowhere ? 0 : host + inCluster, sole, bytes);
    }
    return unallocated(entry)
        ? new Mapping.Unallocated(bytes)
        : new Mapping.Data(host + inCluster, sole, bytes);
  }

  Mapping compressed(long entry, long bytes) throws IOException {
    checkCompressed(entry);
    return new Mapping.Compressed(
        L2Entry.compressedOffset(entry, geometry.clusterBits()),
        L2Entry.compressedBytes(entry, geometry.clusterBits()),
        bytes);
  }

  private void requirePossible(SliceCache.Slice slice, int index, long cluster) throws IOException {
    long entry = slice.entries[index * geometry.l2EntryWords()];
    if (subclusters != null) {
      subclusters.require(slice, index, cluster);
    }
    if (L2Entry.compressed(entry)) {
      checkCompressed(entry);
    } else {
      checkStandard(entry, cluster);
    }
  }

  private void checkCompressed(long entry) throws IOException {
    long at = L2Entry.compressedOffset(entry, geometry.clusterBits());
    if (clusters.fixed() || !inFile(at) || L2Entry.copied(entry)) {
      throw guard.found(
          String.format("L2 entry 0x%x describes a compressed cluster outside the file", entry));
    }
  }

  void checkStandard(long entry, long cluster) throws IOException {
    if (L2Entry.reservedBits(entry, zeroFlagInEntry) != 0 || !namesCluster(entry, cluster)) {
      throw guard.found(
          String.format(
              "the L2 entry of guest offset 0x%x is 0x%x, which names no cluster of the file;"
                  + " run a check",
              geometry.offsetOf(cluster), entry));
    }
  }

  private boolean namesCluster(long entry, long cluster) throws IOException {
    long host = L2Entry.hostOffset(entry);
    if (clusters.fixed()) {
      boolean nowhere = host == 0 && !L2Entry.copied(entry);
      return nowhere || host == geometry.offsetOf(cluster);
    }
    return geometry.inCluster(host) == 0 && !(host == 0 && L2Entry.copied(entry)) && inFile(host);
  }

  /** Offset 0 is a cluster's place only in a data file, where COPIED says that it is one. */
  private static boolean unallocated(long entry) {
    return L2Entry.hostOffset(entry) == 0 && !L2Entry.copied(entry);
  }

  /**
   * Asks for the file's length only where what is known does not do: when it shrinks, only unused
   * clusters go.
   */
  private boolean inFile(long hostOffset) throws IOException {
    if (hostOffset >= fileBytesSeen) {
      fileBytesSeen = file.length();
    }
    return hostOffset < fileBytesSeen;
  }

  private long tableOffset(long cluster) throws IOException {
    long index = geometry.l1Index(cluster);
    long entry = l1[Math.toIntExact(index)];
    long table = L1Entry.tableOffset(entry);
    if (L1Entry.reservedBits(entry) != 0
        || geometry.inCluster(table) != 0
        || (table == 0 && L1Entry.copied(entry))) {
      throw guard.found(
          String.format("L1 entry %d is 0x%x, which names no L2 table; run a check", index, entry));
    }
    return table;
  }

  private SliceCache.Slice slice(long table, long cluster) throws IOException {
    try {
      return slices.get(sliceOffset(table, cluster));
    } catch (CorruptImageException e) {
      throw guard.found(
          String.format(
              "the L2 table at 0x%x (guest offset 0x%x) ends past the end of the file",
              table, geometry.offsetOf(cluster)));
    }
  }

  private long sliceOffset(long table, long cluster) {
    int sliceIndex = geometry.l2Index(cluster) / geometry.sliceEntries();
    return table + (long) sliceIndex * geometry.sliceBytes();
  }

  /** The slice, whose entries may be changed or written through: see {@link SliceCheck}. */
  private SliceCache.Slice checkedSlice(long table, long cluster) throws IOException {
    SliceCache.Slice slice = slice(table, cluster);
    if (!slice.checked) {
      int index = (int) geometry.l1Index(cluster);
      long first = cluster - indexInSlice(cluster);
      for (int i = 0; i < geometry.sliceEntries(); i++) {
        requirePossible(slice, i, first + i);
      }
      if (guard.flagsMayBeStale()) {
        // Then the cluster is copied, and at worst the old one leaks.
        setL1(index, check.withoutStaleFlag(l1[index]));
        if (check.clearStaleFlags(slice.entries)) {
          slices.markDirty(slice);
        }
      }
      check.require(l1[index], firstWords(slice.entries), first);
      slice.checked = true;
    }
    return slice;
  }

  /** What is left of entries without what they say about subclusters. */
  private long[] firstWords(long[] words) {
    if (!geometry.extendedL2()) {
      return words;
    }
    long[] entries = new long[words.length / 2];
    for (int i = 0; i < entries.length; i++) {
      entries[i] = words[2 * i];
    }
    return entries;
  }

  /** The slice of a cluster that has an L2 table, for one who may change it. */
  SliceCache.Slice slice(long cluster) throws IOException {
    return checkedSlice(tableOffset(cluster), cluster);
  }

  CorruptImageException found(String what) {
    return guard.found(what);
  }

  void markDirty(SliceCache.Slice slice) {
    slices.markDirty(slice);
  }

  int indexInSlice(long cluster) {
    return geometry.l2Index(cluster) & (geometry.sliceEntries() - 1);
  }

  /** How many clusters, from {@code cluster} on and at most {@code max}, are in its slice. */
  public int clustersInSlice(long cluster, long max) {
    return (int) Math.min(max, geometry.sliceEntries() - indexInSlice(cluster));
  }

  /** How many clusters, from {@code cluster} on and at most {@code max}, are in its L2 table. */
  public long clustersInTable(long cluster, long max) {
    return Math.min(max, geometry.l2Entries() - geometry.l2Index(cluster));
  }

  /** Whether the cluster has no L2 table. */
  public boolean tableMissing(long cluster) throws IOException {
    return tableOffset(cluster) == 0;
  }

  /**
   * How many clusters, from {@code cluster} on and at most {@code max}, need a new host cluster
   * before a guest may write to them. All of them are in one slice.
   */
  public int countToAllocate(long cluster, long max) throws IOException {
    int inSlice = clustersInSlice(cluster, max);
    if (tableMissing(cluster)) {
      return inSlice;
    }
    SliceCache.Slice slice = slice(cluster);
    if (subclusters != null) {
      return subclusters.countToAllocate(slice, cluster, inSlice);
    }
    int index = indexInSlice(cluster);
    int count = 0;
    while (count < inSlice && !writableInPlace(slice.entries[index + count])) {
      count++;
    }
    return count;
  }

  private boolean writableInPlace(long entry) {
    return ownsCluster(entry) && !(clusters.fixed() && L2Entry.zero(entry));
  }

  /** Whether the entry has a host cluster that nothing else refers to. */
  static boolean ownsCluster(long entry) {
    return !L2Entry.compressed(entry) && L2Entry.copied(entry);
  }

  /** Whether the cluster reads as zeroes by what the tables say, without a look at any data. */
  public boolean readsAsZeroes(long cluster) throws IOException {
    if (tableMissing(cluster)) {
      return pastBacking(cluster);
    }
    SliceCache.Slice slice = slice(tableOffset(cluster), cluster);
    return subclusters == null
        ? readsAsZeroes(slice.entries[indexInSlice(cluster)], cluster)
        : subclusters.readsAsZeroes(slice, cluster);
  }

  private boolean readsAsZeroes(long entry, long cluster) {
    if (L2Entry.compressed(entry)) {
      return false;
    }
    return L2Entry.zero(entry) || (unallocated(entry) && pastBacking(cluster));
  }

  private boolean pastBacking(long cluster) {
    return geometry.offsetOf(cluster) >= backingBytes;
  }

  // ---- changing

  /**
   * Makes the L2 table of {@code cluster} one that may be changed: allocates it, or copies it if a
   * snapshot shares it.
   */
  public void prepare(long cluster) throws IOException {
    int index = Math.toIntExact(geometry.l1Index(cluster));
    long old = tableOffset(cluster);
    if (old != 0) {
      SliceCache.Slice _ = checkedSlice(old, cluster);
      if (L1Entry.copied(l1[index])) {
        return;
      }
    }
    HostRun run = allocator.allocate(1);
    long table = geometry.offsetOf(run.first());
    try {
      if (old != 0) {
        copyTable(old, table);
        barrier.require();
      } else if (allocator.fresh(run)) {
        // Space is taken now, so that a full host fails this write and not a later commit.
        file.allocate(table, geometry.clusterBytes());
      } else {
        file.zeroRange(table, geometry.clusterBytes());
        barrier.require();
      }
    } catch (IOException e) {
      allocator.giveBack(run);
      throw e;
    }
    slices.forget(table, geometry.clusterBytes());
    guard.note(MetadataUse.L2_TABLE, run.first(), 1);
    setL1(index, L1Entry.of(table));
    if (old != 0) {
      guard.forget(geometry.clusterOf(old), 1);
      allocator.release(geometry.clusterOf(old));
    }
  }

  private void copyTable(long from, long to) throws IOException {
    for (int at = 0; at < geometry.clusterBytes(); at += geometry.sliceBytes()) {
      SliceCache.Slice slice = slices.get(from + at);
      TableIo.write(file, to + at, slice.entries, 0, slice.entries.length);
    }
  }

  /**
   * Points {@code run.count()} guest clusters, all in one prepared slice, at the clusters of {@code
   * run}, whose data is written, and releases what they referred to before. Not for an image with
   * subclusters.
   */
  public void assign(long cluster, HostRun run) throws IOException {
    requireWholeClusters();
    SliceCache.Slice slice = slice(cluster);
    int index = indexInSlice(cluster);
    boolean fresh = clusters.fresh(run);
    for (int i = 0; i < run.count(); i++) {
      long old = slice.entries[index + i];
      if (!fresh || !readsAsZeroes(old, cluster + i)) {
        barrier.require();
      }
      slice.entries[index + i] = L2Entry.data(geometry.offsetOf(run.first() + i));
      release(old);
    }
    slices.markDirty(slice);
  }

  /**
   * Points a guest cluster, whose slice is prepared, at a compressed cluster, whose stream is
   * written, and releases what it referred to before.
   */
  public void assignCompressed(long cluster, long hostOffset, int bytes) throws IOException {
    SliceCache.Slice slice = slice(cluster);
    int word = indexInSlice(cluster) * geometry.l2EntryWords();
    long old = slice.entries[word];
    barrier.require(); // a torn stream reads as nothing at all
    slice.entries[word] = L2Entry.compressed(hostOffset, bytes, geometry.clusterBits());
    if (geometry.extendedL2()) {
      slice.entries[word + 1] = 0; // a compressed cluster has no subclusters
    }
    release(old);
    slices.markDirty(slice);
  }

  /**
   * Clears the zero flag of {@code count} clusters, all in one prepared slice, that have host
   * clusters of their own, whose data is written. Not for an image with subclusters.
   */
  public void clearZeroFlag(long cluster, int count) throws IOException {
    requireWholeClusters();
    SliceCache.Slice slice = slice(cluster);
    int index = indexInSlice(cluster);
    for (int i = 0; i < count; i++) {
      slice.entries[index + i] &= ~L2Entry.ZERO;
    }
    barrier.require();
    slices.markDirty(slice);
  }

  private void requireWholeClusters() {
    if (subclusters != null) {
      throw new AssertionError("clusters with subclusters are written through their own map");
    }
  }

  /** What is to become of a cluster that {@link #drop} makes read as zeroes. */
  public enum Dropped {
    /** Trimmed: no entry at all where nothing lies below. */
    UNMAPPED,
    /** Zeroed: marked, so that it reads as zeroes whatever comes to lie below. */
    MARKED,
    /** Zeroed, and the host cluster that it has for itself stays. */
    KEPT
  }

  /**
   * Makes {@code count} clusters, all in one slice, read as zeroes and releases what they referred
   * to. The slice must be prepared, unless {@link #tableMissing}, where nothing lies below, says
   * that there is nothing to do.
   */
  public void drop(long cluster, int count, Dropped how) throws IOException {
    SliceCache.Slice slice = slice(cluster);
    if (subclusters != null) {
      subclusters.drop(slice, cluster, count, how);
      return;
    }
    int index = indexInSlice(cluster);
    boolean changed = false;
    for (int i = 0; i < count; i++) {
      long old = slice.entries[index + i];
      long entry = dropped(old, cluster + i, how);
      if (entry != old) {
        slice.entries[index + i] = entry;
        changed = true;
        if (L2Entry.hostOffset(entry) == 0) {
          release(old);
        }
      }
    }
    if (changed) {
      slices.markDirty(slice);
    }
  }

  private long dropped(long old, long cluster, Dropped how) {
    if (how == Dropped.KEPT && ownsCluster(old)) {
      return old | L2Entry.ZERO;
    }
    boolean nothingBelow = pastBacking(cluster);
    if (!zeroFlagKnown || (how == Dropped.UNMAPPED && nothingBelow)) {
      return 0;
    }
    if (old == 0 && nothingBelow) {
      return 0;
    }
    return L2Entry.ZERO;
  }

  /** Gives {@code run.count()} clusters in one prepared slice clusters that read as zeroes. */
  public void assignZero(long cluster, HostRun run) throws IOException {
    SliceCache.Slice slice = slice(cluster);
    if (subclusters != null) {
      subclusters.assignZero(slice, cluster, run);
      return;
    }
    int index = indexInSlice(cluster);
    for (int i = 0; i < run.count(); i++) {
      long old = slice.entries[index + i];
      slice.entries[index + i] = L2Entry.allocatedZero(geometry.offsetOf(run.first() + i));
      release(old);
    }
    slices.markDirty(slice);
  }

  /**
   * Forgets the L2 table at {@code index} of the L1 table with all that it refers to. Nobody may
   * look any of it up meanwhile.
   */
  public void dropTable(int index) throws IOException {
    requireSound(index);
    long table = L1Entry.tableOffset(l1[index]);
    if (table == 0) {
      return;
    }
    for (int at = 0; at < geometry.clusterBytes(); at += geometry.sliceBytes()) {
      long[] words = slices.get(table + at).entries;
      for (int i = 0; i < words.length; i += geometry.l2EntryWords()) {
        release(words[i]);
      }
    }
    setL1(index, 0);
    guard.forget(geometry.clusterOf(table), 1);
    allocator.release(geometry.clusterOf(table));
  }

  /**
   * Throws unless the L2 table at {@code index} of the L1 table, if there is one, and all that it
   * refers to are what they must be before any of it is changed.
   */
  public void requireSound(int index) throws IOException {
    long first = (long) index * geometry.l2Entries();
    long table = tableOffset(first);
    for (int at = 0; table != 0 && at < geometry.l2Entries(); at += geometry.sliceEntries()) {
      SliceCache.Slice _ = checkedSlice(table, first + at);
    }
  }

  /** Releases what an entry refers to. */
  void release(long old) {
    if (L2Entry.compressed(old)) {
      long at = L2Entry.compressedOffset(old, geometry.clusterBits());
      int bytes = L2Entry.compressedBytes(old, geometry.clusterBits());
      compressedReleased.at(at, bytes);
      long last = geometry.clusterOf(at + bytes - 1);
      for (long cluster = geometry.clusterOf(at); cluster <= last; cluster++) {
        clusters.release(cluster);
      }
    } else if (L2Entry.hostOffset(old) != 0) {
      clusters.release(geometry.clusterOf(L2Entry.hostOffset(old)));
    }
  }

  // ---- moving forward

  /**
   * Where the L2 table at {@code index} is, if nothing but the active L1 table names it; else 0.
   */
  public long soleTable(int index) throws IOException {
    requireSound(index);
    return L1Entry.copied(l1[index]) ? L1Entry.tableOffset(l1[index]) : 0;
  }

  /** Puts the L2 table at {@code index}, a sole one, into another cluster. */
  public void moveTable(int index, HostRun run) throws IOException {
    long old = L1Entry.tableOffset(l1[index]);
    long table = geometry.offsetOf(run.first());
    try {
      copyTable(old, table);
    } catch (IOException e) {
      allocator.giveBack(run);
      throw e;
    }
    barrier.require();
    slices.forget(table, geometry.clusterBytes());
    guard.note(MetadataUse.L2_TABLE, run.first(), 1);
    setL1(index, L1Entry.of(table));
    guard.forget(geometry.clusterOf(old), 1);
    allocator.release(geometry.clusterOf(old));
  }

  /** The first guest cluster from there on, before {@code end}, that {@link #soleRun} is for. */
  public long nextBehind(long cluster, long end, long target) throws IOException {
    long at = cluster;
    while (at < end && soleRun(at, 1, target) == 0) {
      at++;
    }
    return at;
  }

  /**
   * How many guest clusters from there on, in one slice, have host clusters of their own in a row,
   * all of them from host cluster {@code target} on.
   */
  public int soleRun(long cluster, long max, long target) throws IOException {
    if (tableMissing(cluster)) {
      return 0;
    }
    SliceCache.Slice slice = slice(cluster);
    int words = geometry.l2EntryWords();
    int index = words * indexInSlice(cluster);
    int inSlice = clustersInSlice(cluster, max);
    int count = 0;
    while (count < inSlice) {
      long entry = slice.entries[index + words * count];
      long host = L2Entry.hostOffset(entry);
      boolean follows =
          ownsCluster(entry)
              && geometry.clusterOf(host) >= target
              && host == L2Entry.hostOffset(slice.entries[index]) + geometry.offsetOf(count);
      if (!follows) {
        break;
      }
      checkStandard(entry, cluster + count);
      count++;
    }
    return count;
  }

  /** Where the cluster's own host cluster is. */
  public long hostOffset(long cluster) throws IOException {
    int index = geometry.l2EntryWords() * indexInSlice(cluster);
    return L2Entry.hostOffset(slice(cluster).entries[index]);
  }

  /**
   * Points guest clusters of a {@link #soleRun} at the clusters of {@code run}, into which their
   * data was copied; what else their entries say stays.
   */
  public void relocate(long cluster, HostRun run) throws IOException {
    SliceCache.Slice slice = slice(cluster);
    int words = geometry.l2EntryWords();
    int index = words * indexInSlice(cluster);
    for (int i = 0; i < run.count(); i++) {
      long old = slice.entries[index + words * i];
      long host = L2Entry.hostOffset(old);
      slice.entries[index + words * i] = old - host + geometry.offsetOf(run.first() + i);
      allocator.release(geometry.clusterOf(host));
    }
    barrier.require();
    slices.markDirty(slice);
  }

  // ---- snapshots

  /** The L1 table as it is now. */
  public long[] l1() {
    return l1.clone();
  }

  public int l1Entries() {
    return l1.length;
  }

  public long l1Offset() {
    return l1Offset;
  }

  /**
   * The header has come to name another L1 table.
   *
   * @param offset where it is in the file
   * @param entries the old table's, and more; handed over
   */
  public void replaceL1(long offset, long[] entries) {
    l1Offset = offset;
    l1 = entries;
  }

  /**
   * Clears COPIED in the L1 entry at {@code index} and in its L2 table: a snapshot has come to
   * refer to all of it.
   */
  public void clearCopied(int index) throws IOException {
    long table = L1Entry.tableOffset(l1[index]);
    if (table == 0) {
      return;
    }
    setL1(index, l1[index] & ~L1Entry.COPIED);
    updateEntries(table, entry -> L2Entry.compressed(entry) ? entry : entry & ~L2Entry.COPIED);
  }

  /**
   * Sets COPIED in the L1 entry at {@code index} and in its L2 table wherever one reference is
   * counted: a snapshot has stopped to refer to it.
   */
  public void restoreCopied(int index) throws IOException {
    long table = L1Entry.tableOffset(l1[index]);
    if (table == 0 || !allocator.countedOnce(geometry.clusterOf(table))) {
      return;
    }
    setL1(index, l1[index] | L1Entry.COPIED);
    updateEntries(table, this::restoredCopied);
  }

  private long restoredCopied(long entry) throws IOException {
    long host = L2Entry.hostOffset(entry);
    if (L2Entry.compressed(entry) || host == 0 || L2Entry.copied(entry)) {
      return entry;
    }
    return allocator.countedOnce(geometry.clusterOf(host)) ? entry | L2Entry.COPIED : entry;
  }

  private void setL1(int index, long entry) {
    if (l1[index] != entry) {
      l1[index] = entry;
      dirtyL1Sectors.set(index / L1_SECTOR_ENTRIES);
    }
  }

  private interface EntryUpdate {
    long apply(long entry) throws IOException;
  }

  private void updateEntries(long table, EntryUpdate update) throws IOException {
    for (int at = 0; at < geometry.clusterBytes(); at += geometry.sliceBytes()) {
      SliceCache.Slice slice = slices.get(table + at);
      for (int i = 0; i < slice.entries.length; i += geometry.l2EntryWords()) {
        long updated = update.apply(slice.entries[i]);
        if (updated != slice.entries[i]) {
          slice.entries[i] = updated;
          slices.markDirty(slice);
        }
      }
    }
  }

  // ---- committing

  /** Whether there is anything for a commit to write. */
  public boolean dirty() {
    return slices.dirtyCount() > 0 || !dirtyL1Sectors.isEmpty();
  }

  /** Takes a copy of all that is dirty; {@link PendingTables#write} needs no lock. */
  public PendingTables takeDirty() {
    List<SliceCache.Slice> taken = slices.takeDirty();
    List<PendingTables.Piece> pieces = new ArrayList<>();
    for (SliceCache.Slice slice : taken) {
      pieces.add(new PendingTables.Piece(slice.hostOffset, slice.entries.clone()));
    }
    BitSet l1Sectors = (BitSet) dirtyL1Sectors.clone();
    dirtyL1Sectors.clear();
    for (int sector = l1Sectors.nextSetBit(0);
        sector >= 0;
        sector = l1Sectors.nextSetBit(sector + 1)) {
      int from = sector * L1_SECTOR_ENTRIES;
      int to = Math.min(l1.length, from + L1_SECTOR_ENTRIES);
      pieces.add(
          new PendingTables.Piece(
              l1Offset + (long) from * L1Entry.BYTES, Arrays.copyOfRange(l1, from, to)));
    }
    return new PendingTables(pieces, taken, l1Sectors);
  }

  /** The commit that took the tables ended; if not {@code durable} they must be written again. */
  public void committed(PendingTables tables, boolean durable) {
    slices.written(tables.slices(), durable);
    if (!durable) {
      dirtyL1Sectors.or(tables.l1Sectors());
    }
  }
}
