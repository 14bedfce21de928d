package io.qnbd.image.refcount;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.MetadataUse;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * Hands out host clusters and takes them back.
 *
 * <p>The life of a cluster:
 *
 * <pre>
 *            reserve()                 allocate()                replace by the guest
 *   FREE ----------------> IN THE POOL ----------> REFERRED TO ----------------------> RELEASED
 *   count 0                count 1, written        count 1 or more                     in the batch
 *    ^                        ^    |                  ^                                    |
 *    |   pool full, drain()   |    | giveBack()       | count was 2 or more                | commit,
 *    +------------------------+----+                  +------------------------------------+ apply()
 *                             |                                                            |
 *                             +---- makeAvailable() ---- QUARANTINED, count still 1 <------+
 * </pre>
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>A cluster's count of 1 is in the file's page cache before the cluster is handed out, and
 *       the barrier makes it durable before the first reference to it is written.
 *   <li>The file is long enough for every cluster in the pool, by the same barrier.
 *   <li>A cluster that is released is not handed out before a commit made the removal of its
 *       reference durable.
 * </ul>
 *
 * <p>Owner: the image's metadata lock.
 */
public final class Allocator {
  /** The first reservation of a session; each one doubles, up to the limit that was set. */
  private static final int RESERVE_FIRST = 16;

  /** A reservation spans at most this much of the file, but 32 clusters in any case. */
  private static final long RESERVE_BYTES_MAX = 256L << 20;

  private static final int RESERVE_CLUSTERS_MIN = 32;

  /** Freed clusters kept as counted, for the next allocation; what is over is written as free. */
  private static final int FREED_KEPT_MAX = 1024;

  private static final int FREED_RUNS_KEPT_MAX = 64;

  private static final String ALLOCATED = "next free cluster";

  private final Storage file;
  private final Geometry geometry;
  private final RefcountBlocks blocks;
  private final RefcountBlocks.HeaderFields header;
  private final Barrier barrier;
  private final int reserveMax;
  private final boolean lazy;
  private final Guard guard;
  private final ClusterPool pool = new ClusterPool();
  private final StreamSpace streams;
  private final FreedTail freed = new FreedTail();

  /** Clusters of the file from there on are there because of this session. */
  private long foundEnd;

  private ReleaseBatch released = new ReleaseBatch();
  private int reserveNext;
  private long searchFrom = 1;
  private long syncsCompleted;

  /** Whether an unused cluster's count of 1 is in memory only: there were several references. */
  private boolean loweredToOne;

  /** Clusters in use whose count has fallen in memory only. As many as a commit may leave so. */
  private final Set<Long> loweredInMemory = new HashSet<>();

  /** Whether a shared cluster's count was raised in memory only, see {@link #writeRaised}. */
  private boolean raised;

  private final AllocatorCounters counters = new AllocatorCounters();

  /** Written under the metadata lock, read by anybody. */
  private final AtomicLong unusedEpoch = new AtomicLong();

  /**
   * Nothing is reserved yet.
   *
   * @param reserveMax the most clusters to reserve ahead; 0 reserves only what is asked for
   * @param lazy whether the dirty bit is set while the image is written to, so that counts need not
   *     be written before {@link #writeRefcounts}
   * @param guard knows which clusters hold metadata
   */
  public Allocator(
      Storage file,
      Geometry geometry,
      RefcountBlocks blocks,
      RefcountBlocks.HeaderFields header,
      Barrier barrier,
      int reserveMax,
      boolean lazy,
      Guard guard)
      throws IOException {
    this.file = file;
    this.geometry = geometry;
    this.blocks = blocks;
    this.header = header;
    this.barrier = barrier;
    this.lazy = lazy;
    this.streams = new StreamSpace(geometry.clusterBytes());
    this.guard = guard;
    this.foundEnd = geometry.clustersFor(file.length());
    long spanMax = Math.max(RESERVE_CLUSTERS_MIN, RESERVE_BYTES_MAX >> geometry.clusterBits());
    this.reserveMax = (int) Math.min(reserveMax, spanMax);
    this.reserveNext = Math.min(RESERVE_FIRST, this.reserveMax);
  }

  /** What the layers above tell of their own metadata. */
  public Guard guard() {
    return guard;
  }

  public AllocatorCounters counters() {
    return counters;
  }

  /**
   * Takes up to {@code wanted} clusters in a row, at least one.
   *
   * @throws io.qnbd.image.NoSpaceException when the host or the format has no room for one more
   */
  public HostRun allocate(int wanted) throws IOException {
    HostRun fitting = pool.takeFitting(wanted);
    if (fitting == null && pool.clusters() < Math.max(wanted, reserveNext)) {
      reserve(Math.max(wanted, reserveNext));
      reserveNext = Math.min(reserveNext * 2, reserveMax);
      fitting = pool.takeFitting(wanted);
    }
    HostRun run = fitting != null ? fitting : pool.takeLongest();
    if (run == null) {
      throw new AssertionError("reserved nothing and said nothing");
    }
    counters.allocated += run.count();
    if (run.freed()) {
      counters.reused += run.count();
    }
    return run;
  }

  /** Whether the clusters of the run read as zeroes, also after a power cut. */
  public boolean fresh(HostRun run) {
    return run.freshFrom() <= syncsCompleted;
  }

  /** Takes back a run that nothing came to refer to; it may have been written to. */
  public void giveBack(HostRun run) {
    counters.allocated -= run.count();
    pool.add(new HostRun(run.first(), run.count(), HostRun.NEVER, run.freed()));
  }

  /** One reference to the cluster was overwritten in memory: REF-, when that is durable. */
  public void release(long cluster) {
    released.add(cluster);
    counters.batched++;
  }

  public int releasedCount() {
    return released.count();
  }

  /** Hands the batch to a commit. */
  public ReleaseBatch takeReleased() {
    ReleaseBatch batch = released;
    released = new ReleaseBatch();
    return batch;
  }

  /** The commit failed: nothing is known to be durable, so the batch waits for the next one. */
  public void putBack(ReleaseBatch batch) {
    released.addAll(batch);
  }

  /** A sync that began after all earlier calls of {@link #makeAvailable} has completed. */
  public void syncCompleted() {
    syncsCompleted++;
  }

  /**
   * How often clusters have become unused. Whoever looked a cluster up, read it, and finds the same
   * number before and after has read what the cluster was looked up for: it cannot have been
   * punched, nor handed out, before the number grew. May be called without the lock.
   */
  public long unusedEpoch() {
    return unusedEpoch.get();
  }

  /**
   * Applies a batch whose removals are durable. Clusters that nothing refers to any more keep their
   * count of 1 and stay in quarantine, for the caller to punch.
   *
   * @return the runs now unused, ascending; never handed out before {@link #makeAvailable}
   */
  public List<HostRun> apply(ReleaseBatch batch) throws IOException {
    long[] sorted = batch.sorted();
    List<HostRun> unused = new ArrayList<>();
    HostRun run = null;
    for (int i = 0; i < sorted.length; ) {
      int same = 1;
      while (i + same < sorted.length && sorted[i + same] == sorted[i]) {
        same++;
      }
      if (dropReferences(sorted[i], same)) {
        streams.unused(sorted[i]);
        if (run != null && run.end() == sorted[i]) {
          run = new HostRun(run.first(), run.count() + 1);
        } else {
          addTo(unused, run);
          run = new HostRun(sorted[i], 1);
        }
      }
      counters.coalesced += same - 1;
      i += same;
    }
    addTo(unused, run);
    if (!unused.isEmpty()) {
      unusedEpoch.incrementAndGet(); // before any of them is touched
    }
    counters.applied += sorted.length;
    if (loweredToOne && !lazy) {
      // They are handed out as counted once, and the next reference to them will say so.
      writeRefcounts();
    }
    return unused;
  }

  private static void addTo(List<HostRun> runs, @Nullable HostRun run) {
    if (run != null) {
      runs.add(run);
    }
  }

  /** Whether the last reference is gone. */
  private boolean dropReferences(long cluster, int references) throws IOException {
    long count = blocks.count(cluster);
    if (Long.compareUnsigned(count, references) < 0) {
      throw guard.found(
          String.format(
              "cluster %d (0x%x) lost %d references, but its refcount is %d",
              cluster, geometry.offsetOf(cluster), references, count));
    }
    long left = count - references;
    if (left == 0) {
      guard.requireUnused(cluster);
    }
    if (left == 0 && count == 1) {
      loweredToOne |= loweredInMemory.contains(cluster);
      return true;
    }
    blocks.set(cluster, Math.max(left, 1));
    if (left == 0) {
      loweredToOne = true;
    } else if (!lazy) {
      loweredInMemory.add(cluster);
    }
    return left == 0;
  }

  /** Ends the quarantine of a run; {@code punched} when it now reads as zeroes. */
  public void makeAvailable(HostRun run, boolean punched) throws IOException {
    freed.add(run);
    boolean keep =
        pool.clusters() + run.count() <= Math.max(reserveMax, FREED_KEPT_MAX)
            && pool.runCount() < FREED_RUNS_KEPT_MAX;
    if (keep) {
      long freshFrom = punched ? syncsCompleted + 1 : HostRun.NEVER;
      pool.add(new HostRun(run.first(), run.count(), freshFrom, true));
      counters.cancelled += run.count();
    } else {
      free(run);
    }
  }

  private void free(HostRun run) throws IOException {
    for (long cluster = run.first(); cluster < run.end(); cluster++) {
      blocks.set(cluster, 0);
    }
    searchFrom = Math.min(searchFrom, run.first());
    counters.returned += run.count();
  }

  /** Clusters counted as used and referred to by nothing. */
  public long pooled() {
    return pool.clusters();
  }

  /** Writes of refcount blocks and of the refcount table so far. */
  public long refcountWrites() {
    return blocks.writes();
  }

  /** Gives back what the pool holds; the counts are written with the next refcount write. */
  public void drain() throws IOException {
    for (HostRun run : pool.takeAll()) {
      free(run);
    }
    reserveNext = Math.min(RESERVE_FIRST, reserveMax);
  }

  /** Writes the counts that changed; durable with the next sync. */
  public void writeRefcounts() throws IOException {
    blocks.writeDirty();
    loweredInMemory.clear();
    loweredToOne = false;
    raised = false;
  }

  /**
   * Where the file may be cut off: the end of the last cluster that is counted, or that was there
   * before, holds something, and is not known to have become unused since. So a count that damage
   * has lost costs no data.
   */
  public long cuttableEnd(long fileBytes) throws IOException {
    long end = geometry.clustersFor(fileBytes);
    while (end > 1 && blocks.count(end - 1) == 0 && holdsNothing(end - 1)) {
      end--;
    }
    foundEnd = Math.min(foundEnd, end);
    return geometry.offsetOf(end);
  }

  private boolean holdsNothing(long cluster) throws IOException {
    return cluster >= foundEnd
        || freed.contains(cluster)
        || file.isHole(geometry.offsetOf(cluster), geometry.clusterBytes());
  }

  /**
   * The end of the last cluster that is counted, looking down from {@code fileBytes}: for somebody
   * who knows that everything that is referred to is counted.
   */
  public long usedEnd(long fileBytes) throws IOException {
    long end = geometry.clustersFor(fileBytes);
    while (end > 1 && blocks.count(end - 1) == 0) {
      end--;
    }
    return geometry.offsetOf(end);
  }

  /**
   * REF+: counts {@code wanted} free clusters as used, from the lowest free one up, and puts them
   * into the pool. No hole is passed over, so none is forgotten.
   */
  private void reserve(int wanted) throws IOException {
    long fileEnd = geometry.clustersFor(file.length());
    List<HostRun> found = new ArrayList<>();
    try {
      find(wanted, fileEnd, found);
      if (!lazy) {
        writeRefcounts();
      }
      extendTo(found.getLast().end());
    } catch (IOException e) {
      for (HostRun run : found) {
        for (long cluster = run.first(); cluster < run.end(); cluster++) {
          blocks.set(cluster, 0);
        }
        searchFrom = Math.min(searchFrom, run.first());
      }
      throw e;
    }
    barrier.require();
    for (HostRun run : found) {
      pool.add(run);
      counters.reserved += run.count();
    }
  }

  /**
   * Takes {@code count} clusters in a row, from behind the last one of the file: for tables that
   * may not be broken up.
   */
  public HostRun allocateContiguous(int count) throws IOException {
    HostRun fitting = pool.takeFitting(count);
    if (fitting != null) {
      counters.allocated += count;
      return fitting;
    }
    long first = freeBehindFile(count);
    for (long cluster = first; cluster < first + count; cluster++) {
      blocks.set(cluster, 1);
    }
    writeRefcounts();
    extendTo(first + count);
    barrier.require();
    counters.reserved += count;
    counters.allocated += count;
    return new HostRun(first, count, 0, false);
  }

  /**
   * Space for a compressed cluster of {@code bytes}, less than a cluster: behind the last one, as
   * far as the refcounts can count one more there. Each host cluster that it touches is counted
   * once more; {@link #writeRaised} writes that.
   *
   * @return where it begins; {@link #giveBackStream} takes it back if nothing comes to refer to it
   */
  public long allocateStream(int bytes) throws IOException {
    long open =
        streams.room() > 0 && canAddReference(streams.openCluster()) ? streams.openCluster() : 0;
    if (open != 0 && bytes <= streams.room()) {
      raise(open);
      long at = geometry.offsetOf(open) + streams.taken();
      streams.endsIn(open, streams.taken() + bytes);
      return at;
    }
    HostRun next = open == 0 ? null : pool.take(open + 1);
    if (next == null) {
      next = allocate(1);
    } else {
      counters.allocated++;
    }
    if (open != 0 && next.first() == open + 1) {
      try {
        raise(open);
      } catch (IOException e) {
        giveBack(next);
        throw e;
      }
      long at = geometry.offsetOf(open) + streams.taken();
      streams.endsIn(next.first(), bytes - streams.room());
      return at;
    }
    streams.endsIn(next.first(), bytes);
    return geometry.offsetOf(next.first());
  }

  private void raise(long cluster) throws IOException {
    addReference(cluster);
    raised = true;
  }

  /** Takes back a stream's space that nothing came to refer to. */
  public void giveBackStream(long at, int bytes) {
    long last = geometry.clusterOf(at + bytes - 1);
    for (long cluster = geometry.clusterOf(at); cluster <= last; cluster++) {
      release(cluster);
    }
  }

  /**
   * Writes the counts that {@link #allocateStream} has raised. A commit calls it before it takes
   * the entries that refer to them; the barrier makes them durable before those are written.
   */
  public void writeRaised() throws IOException {
    if (raised && !lazy) {
      writeRefcounts();
    }
  }

  /** Whether the cluster is counted as used. */
  public boolean inUse(long cluster) throws IOException {
    return blocks.count(cluster) != 0;
  }

  /**
   * Takes the lowest free clusters, up to {@code wanted} in a row and all below {@code limit},
   * which is inside the file; null when none is free there. What guests have reserved is not free.
   */
  public @Nullable HostRun allocateBelow(int wanted, long limit) throws IOException {
    while (searchFrom < limit && !free(searchFrom)) {
      searchFrom++;
    }
    long first = searchFrom;
    int count = 0;
    while (count < wanted && first + count < limit && free(first + count)) {
      count++;
    }
    return count == 0 ? null : take(first, count);
  }

  /** Takes {@code count} free clusters in a row below {@code limit}; null where there are none. */
  public @Nullable HostRun allocateContiguousBelow(int count, long limit) throws IOException {
    int found = 0;
    for (long cluster = searchFrom; cluster < limit; cluster++) {
      found = free(cluster) ? found + 1 : 0;
      if (found == count) {
        return take(cluster + 1 - count, count);
      }
    }
    return null;
  }

  private boolean free(long cluster) throws IOException {
    return blocks.hasBlock(cluster) && blocks.count(cluster) == 0;
  }

  private HostRun take(long first, int count) throws IOException {
    guard.requireFree(ALLOCATED, first, count);
    for (long cluster = first; cluster < first + count; cluster++) {
      blocks.set(cluster, 1);
    }
    if (!lazy) {
      blocks.writeDirty();
    }
    barrier.require();
    counters.reserved += count;
    counters.allocated += count;
    return new HostRun(first, count);
  }

  /**
   * Moves refcount blocks and the refcount table from {@code target} on to free clusters before it.
   *
   * @return how many clusters were moved
   */
  public long moveRefcountsBelow(long target) throws IOException {
    long moved = 0;
    for (int index = 0; index < blocks.tableEntries(); index++) {
      if (blocks.blockCluster(index) >= target) {
        HostRun run = allocateBelow(1, target);
        if (run == null) {
          return moved;
        }
        long old = blocks.moveBlock(index, run.first());
        guard.forget(old, 1);
        guard.note(MetadataUse.REFCOUNT_BLOCK, run.first(), 1);
        release(old);
        barrier.require();
        moved++;
      }
    }
    int tableClusters = blocks.tableClusters();
    if (geometry.clusterOf(blocks.tableOffset()) + tableClusters > target) {
      HostRun run = allocateContiguousBelow(tableClusters, target);
      if (run != null) {
        for (long cluster : blocks.moveTable(run.first(), header)) {
          guard.forget(cluster, 1);
          release(cluster);
        }
        guard.note(MetadataUse.REFCOUNT_TABLE, run.first(), run.count());
        barrier.require();
        moved += tableClusters;
      }
    }
    return moved;
  }

  /** Makes the file long enough; it may be longer, by tables that were put behind. */
  private void extendTo(long endCluster) throws IOException {
    long bytes = geometry.offsetOf(endCluster);
    if (bytes > file.length()) {
      file.setLength(bytes);
    }
  }

  /** Where {@code count} clusters in a row are free and countable, behind the file's last one. */
  private long freeBehindFile(int count) throws IOException {
    long first = Math.max(1, geometry.clustersFor(file.length()));
    for (long obstacle = first; obstacle >= 0; ) {
      first = Math.max(obstacle, geometry.clustersFor(file.length()));
      makeCountable(first, first + count);
      obstacle = lastInUse(first, first + count);
    }
    guard.requireFree(ALLOCATED, first, count);
    return first;
  }

  /** Sees to it that each cluster of the range has a block; these come from outside of it. */
  private void makeCountable(long first, long end) throws IOException {
    while (end > blocks.countableEnd()) {
      growTable();
    }
    long perBlock = geometry.refcountBlockEntries();
    for (long cluster = first; cluster < end; cluster += perBlock - cluster % perBlock) {
      if (!blocks.hasBlock(cluster)) {
        addBlockFromElsewhere(cluster);
      }
    }
  }

  private void addBlockFromElsewhere(long counted) throws IOException {
    HostRun home = allocate(1);
    if (blocks.hasBlock(counted)) {
      giveBack(home); // reserving it has made the block
    } else {
      blocks.addBlock(counted, home.first());
      guard.note(MetadataUse.REFCOUNT_BLOCK, home.first(), 1);
    }
  }

  /** The cluster behind the last one of the range that is counted; -1 if none is. */
  private long lastInUse(long first, long end) throws IOException {
    for (long cluster = end - 1; cluster >= first; cluster--) {
      if (blocks.count(cluster) != 0) {
        return cluster + 1;
      }
    }
    return -1;
  }

  /** Whether the cluster's count can be raised by one. */
  public boolean canAddReference(long cluster) throws IOException {
    return blocks.count(cluster) != geometry.refcountMax();
  }

  /** Raises the count of a cluster that is in use: a snapshot comes to refer to it too. */
  public void addReference(long cluster) throws IOException {
    blocks.set(cluster, blocks.count(cluster) + 1);
  }

  /** Undoes {@link #addReference}. */
  public void takeBackReference(long cluster) throws IOException {
    blocks.set(cluster, blocks.count(cluster) - 1);
  }

  /** How many references to the cluster are counted, as an unsigned number. */
  public long count(long cluster) throws IOException {
    return blocks.count(cluster);
  }

  /** Whether exactly one reference to the cluster is counted. */
  public boolean countedOnce(long cluster) throws IOException {
    return blocks.count(cluster) == 1;
  }

  private void find(int wanted, long fileEnd, List<HostRun> found) throws IOException {
    HostRun run = null;
    int left = wanted;
    try {
      for (; left > 0; searchFrom++) {
        long cluster = searchFrom;
        if (cluster >= blocks.countableEnd()) {
          growTable();
        }
        if (!blocks.hasBlock(cluster)) {
          guard.requireFree("new refcount block", cluster, 1);
          blocks.addBlock(cluster);
          guard.note(MetadataUse.REFCOUNT_BLOCK, cluster, 1);
          continue;
        }
        if (blocks.count(cluster) != 0) {
          continue;
        }
        guard.requireFree(ALLOCATED, cluster, 1);
        blocks.set(cluster, 1);
        left--;
        long freshFrom = cluster >= fileEnd ? 0 : HostRun.NEVER;
        if (run != null && run.end() == cluster && run.freshFrom() == freshFrom) {
          run = run.join(new HostRun(cluster, 1, freshFrom, false));
        } else {
          addTo(found, run);
          run = new HostRun(cluster, 1, freshFrom, false);
        }
      }
    } finally {
      addTo(found, run);
    }
  }

  private void growTable() throws IOException {
    RefcountBlocks.Growth growth = blocks.planGrowth();
    guard.requireFree(
        "new refcount table", growth.firstCluster(), growth.end() - growth.firstCluster());
    for (long cluster : blocks.grow(growth, header)) {
      guard.forget(cluster, 1);
      release(cluster);
    }
    for (int i = 0; i < growth.blocks(); i++) {
      guard.note(MetadataUse.REFCOUNT_BLOCK, growth.firstCluster() + i, 1);
    }
    guard.note(
        MetadataUse.REFCOUNT_TABLE,
        growth.firstCluster() + growth.blocks(),
        growth.tableClusters());
    barrier.require();
  }
}
