package io.qnbd.image.disk;

import io.qnbd.image.mapping.PendingTables;
import io.qnbd.image.refcount.HostRun;
import io.qnbd.image.refcount.ReleaseBatch;
import java.io.IOException;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Makes everything that returned before it durable, in the one order that a power cut can't hurt.
 *
 * <pre>
 *   (before)  data, copied tables, refcount increments, length of the file: in the page cache
 *   1. take   a copy of the dirty L2 and L1 entries, and the batch of released clusters; counts
 *             that compressed clusters have raised in memory are written before
 *   2. sync   an external data file in any case; the image file unless everything that the entries
 *             will refer to reads, torn or not, as it did before
 *   3. write  the entries
 *   4. sync   acknowledged from here on
 *   5. apply  the batch: counts fall in memory, clusters that nothing refers to are punched while
 *             still in quarantine, then handed out again
 * </pre>
 *
 * <p>What keeps the rules at a cut between any two writes: before 4 is durable an entry on disk is
 * the old one, whose cluster is untouched (5 has not happened), or the new one, whose cluster and
 * count are durable by 2. After 4, losing what 5 did leaves counts too high: leaks.
 *
 * <p>Owner: the image's committer thread; {@link #run} is never entered twice at a time.
 */
final class CommitOrder {
  private static final Logger LOG = LoggerFactory.getLogger(CommitOrder.class);

  private final Layers layers;
  private final boolean punchFreed;
  private final int unwrittenDecrementsMax;
  private long unwrittenDecrements;

  /** Entries, neighbours at once, written so far; under the metadata lock. */
  private long tableWrites;

  /** Whether nothing was changed since the committer last looked. */
  private volatile boolean quiet;

  /**
   * @param unwrittenDecrementsMax decrements applied in memory before their blocks are written even
   *     if no reservation writes them along; bounds what a crash leaks
   */
  CommitOrder(Layers layers, boolean punchFreed, int unwrittenDecrementsMax) {
    this.layers = layers;
    this.punchFreed = punchFreed;
    this.unwrittenDecrementsMax = unwrittenDecrementsMax;
  }

  void run() throws IOException {
    PendingTables tables;
    ReleaseBatch batch;
    boolean barrier;
    layers.metadata().lock();
    try {
      layers.allocator().writeRaised();
      tables = layers.map().takeDirty();
      batch = layers.allocator().takeReleased();
      barrier = layers.barrier().take();
    } finally {
      layers.metadata().unlock();
    }
    boolean durable = false;
    int writes = 0;
    List<HostRun> unused = List.of();
    try {
      layers.syncDataFile();
      if (barrier && !tables.isEmpty()) {
        layers.syncFile();
      }
      writes = tables.write(layers.file());
      layers.syncFile();
      durable = true;
    } finally {
      layers.metadata().lock();
      try {
        layers.map().committed(tables, durable);
        tableWrites += writes;
        if (durable) {
          layers.allocator().syncCompleted();
          unused = apply(batch);
        } else {
          layers.allocator().putBack(batch);
          if (barrier) {
            layers.barrier().require();
          }
        }
      } finally {
        layers.metadata().unlock();
      }
    }
    for (HostRun run : unused) {
      endQuarantine(run);
    }
  }

  /** Writes of L2 and L1 entries. The metadata lock is held. */
  long tableWrites() {
    return tableWrites;
  }

  /** A guest is about to change something. */
  void noteChange() {
    if (quiet) {
      quiet = false;
    }
  }

  /**
   * Gives back what is reserved if nothing was changed since the last call. Counts fall for
   * clusters that nothing refers to, so no sync is needed for it.
   */
  void giveBackWhenIdle() throws IOException {
    if (!quiet) {
      quiet = true;
      return;
    }
    layers.metadata().lock();
    try {
      if (layers.allocator().pooled() > 0) {
        layers.allocator().drain();
        layers.allocator().writeRefcounts();
        long used = layers.allocator().cuttableEnd(layers.file().length());
        if (used < layers.file().length()) {
          layers.file().setLength(used);
        }
      }
    } finally {
      layers.metadata().unlock();
    }
  }

  /** Freeing is best effort: what fails is a leak, not an error of the commit. */
  private List<HostRun> apply(ReleaseBatch batch) {
    try {
      List<HostRun> unused = layers.allocator().apply(batch);
      unwrittenDecrements += batch.count();
      if (unwrittenDecrements > unwrittenDecrementsMax) {
        unwrittenDecrements = 0;
        layers.allocator().writeRefcounts();
      }
      return unused;
    } catch (IOException e) {
      LOG.warn("{}: leaked up to {} clusters: {}", name(), batch.count(), e.getMessage());
      return List.of();
    }
  }

  /** Nothing refers to the run and nothing can be handed it while it is punched. */
  private void endQuarantine(HostRun run) {
    boolean punched = false;
    try {
      if (punchFreed) {
        long at = layers.geometry().offsetOf(run.first());
        // The file may end inside its last cluster.
        long there = Math.min(layers.geometry().offsetOf(run.count()), layers.file().length() - at);
        if (there > 0) {
          layers.file().punchHole(at, there);
        }
        punched = true;
      }
    } catch (IOException e) {
      LOG.debug("{}: space not given back to the host: {}", name(), e.getMessage());
    }
    layers.metadata().lock();
    try {
      layers.allocator().makeAvailable(run, punched);
    } catch (IOException e) {
      LOG.warn("{}: leaked {} clusters: {}", name(), run.count(), e.getMessage());
    } finally {
      layers.metadata().unlock();
    }
  }

  private String name() {
    return layers.file().name();
  }
}
