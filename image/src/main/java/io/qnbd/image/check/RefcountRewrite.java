package io.qnbd.image.check;

import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Writes a refcount table and its blocks anew, behind all that the file holds. Nothing refers to
 * them before the header does, which is the caller's next step; until then a power cut leaves a
 * longer file and nothing else.
 *
 * <pre>
 *   at first:  table | block | block | ...        in clusters of their own, counted once
 * </pre>
 */
final class RefcountRewrite {
  /** How often a cluster is to be counted. */
  interface Counts {
    long of(long cluster) throws IOException;

    /**
     * The first cluster from {@code from} on, before {@code end}, that counts; else {@code end}.
     */
    long next(long from, long end) throws IOException;
  }

  /** Where the table is. */
  record Table(long offset, int clusters) {}

  private final Storage file;
  private final Geometry geometry;
  private final Counts counts;
  private final long first;
  private long tableClusters = 1;
  private List<Long> ranges = new ArrayList<>();

  private RefcountRewrite(Storage file, Geometry geometry, Counts counts, long first) {
    this.file = file;
    this.geometry = geometry;
    this.counts = counts;
    this.first = first;
  }

  /**
   * Writes them; durable when this returns.
   *
   * @param geometry with the width of the new refcounts, which must hold every count
   * @param first the first cluster behind all that is counted and behind the file
   */
  static Table write(Storage file, Geometry geometry, Counts counts, long first)
      throws IOException {
    return new RefcountRewrite(file, geometry, counts, first).write();
  }

  private Table write() throws IOException {
    plan();
    long perBlock = geometry.refcountBlockEntries();
    byte[] table = new byte[(int) geometry.offsetOf(tableClusters)];
    ByteBuffer entries = ByteBuffer.wrap(table);
    long blockAt = first + tableClusters;
    for (long range : ranges) {
      byte[] block = new byte[geometry.clusterBytes()];
      long start = range * perBlock;
      long end = start + perBlock;
      for (long at = counts.next(start, end); at < end; at = counts.next(at + 1, end)) {
        RefcountEntries.set(block, geometry.refcountOrder(), (int) (at - start), counts.of(at));
      }
      for (long at = Math.max(start, first); at < Math.min(end, end()); at++) {
        RefcountEntries.set(block, geometry.refcountOrder(), (int) (at - start), 1);
      }
      file.write(geometry.offsetOf(blockAt), ByteBuffer.wrap(block));
      entries.putLong((int) range * Long.BYTES, geometry.offsetOf(blockAt));
      blockAt++;
    }
    file.write(geometry.offsetOf(first), ByteBuffer.wrap(table));
    file.sync();
    return new Table(geometry.offsetOf(first), (int) tableClusters);
  }

  private long end() {
    return first + tableClusters + ranges.size();
  }

  /** Enough blocks for all that counts and for themselves, and a table with entries for them. */
  private void plan() throws IOException {
    while (true) {
      long endBefore = end();
      ranges = rangesTo(endBefore);
      long entries = Math.ceilDiv(end(), geometry.refcountBlockEntries());
      tableClusters = geometry.clustersFor(entries * Long.BYTES);
      if (geometry.offsetOf(tableClusters) > HeaderRules.REFCOUNT_TABLE_BYTES_MAX) {
        throw new UnsupportedImageException(
            file.name() + ": refcounts of that width can't count so large a file");
      }
      if (end() == endBefore) {
        return;
      }
    }
  }

  private List<Long> rangesTo(long end) throws IOException {
    long perBlock = geometry.refcountBlockEntries();
    List<Long> used = new ArrayList<>();
    for (long at = counts.next(0, first); at < first; ) {
      long range = at / perBlock;
      used.add(range);
      at = counts.next((range + 1) * perBlock, Math.max(first, (range + 1) * perBlock));
    }
    long last = used.isEmpty() ? -1 : used.getLast();
    for (long range = Math.max(last + 1, first / perBlock); range * perBlock < end; range++) {
      used.add(range);
    }
    return used;
  }
}
