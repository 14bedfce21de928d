package io.qnbd.image.check;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.RefcountBlocks;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Makes the refcounts and COPIED flags of a qcow2 image what its references say: after a crash of
 * an image with lazy refcounts (dirty bit), after an operation on snapshots that was cut short.
 *
 * <pre>
 *   1. count   references; an image that is damaged in any other way is refused, unchanged
 *   2. sync    what was read: it may have been in the page cache only
 *   3. raise   the counts that are too low, with new refcount blocks where there are none; sync
 *   4. flag    COPIED where there is one reference, and nowhere else; sync
 *   5. lower   the counts that are too high; sync
 *   6. clear   the dirty bit; sync
 * </pre>
 *
 * <p>What a cut between any two writes leaves:
 *
 * <ul>
 *   <li>References stay as they are from beginning to end, but for those to the refcount structures
 *       themselves, and these are durable before they are referred to. So all data is there, and a
 *       second rebuild counts the same.
 *   <li>A cluster is written to only if nothing that is durable refers to it (2).
 *   <li>No count falls before the counts of everything that is referenced are durably high enough.
 *   <li>The dirty bit, if it was set, is set until all else is durable.
 * </ul>
 *
 * <p>The refcount table grows if it has no entry left for a new block. References to clusters that
 * it never had an entry for are damage.
 *
 * <p>Owner: one call. Not thread-safe, and nothing else may have the image open.
 */
public final class Rebuild {
  private final Storage file;
  private final ProgressListener progress;
  private final Header header;
  private final Geometry geometry;
  private final ReferenceWalk walk;
  private final ClusterCounts counts;
  private long changed;

  private Rebuild(Storage file, ProgressListener progress) throws IOException {
    this(file, new ReferenceWalk(file, ReferenceWalk.pagesMax()), progress);
  }

  /** For some of the steps alone. */
  Rebuild(Storage file, ReferenceWalk walk, ProgressListener progress) {
    this.file = file;
    this.progress = progress;
    this.walk = walk;
    this.header = walk.header();
    this.geometry = header.geometry();
    this.counts = walk.counts();
  }

  /**
   * Rebuilds the refcounts; everything is durable when this returns. Without a dirty bit a power
   * cut in the midst of it leaves flags and counts for a further rebuild that nothing asks for, so
   * the caller remembers, or sets the bit.
   *
   * @param progress called on this thread
   * @return how many counts were wrong
   * @throws CorruptImageException when more is wrong than refcounts and flags, or when a cluster
   *     has more references than the image's refcounts can count; the file is unchanged
   * @throws io.qnbd.image.UnsupportedImageException when the image has features that are unknown
   */
  public static long rebuild(Storage file, ProgressListener progress) throws IOException {
    return new Rebuild(file, progress).run();
  }

  /**
   * The same for an image that may be marked corrupt, in which nothing but counts and flags is
   * wrong. It is marked dirty, where the format can say so, from before the first flag is written
   * to the end.
   *
   * @param raise whether counts that are too low are mended, too
   */
  static void repair(Storage file, boolean raise, ProgressListener progress) throws IOException {
    Rebuild rebuild = new Rebuild(file, progress);
    rebuild.walk.count(progress);
    rebuild.requireSoundTables();
    file.sync();
    rebuild.clearUnknownAutoclear();
    rebuild.fillLastCluster();
    RefcountBlocks blocks = rebuild.openBlocks();
    if (raise) {
      rebuild.raise(blocks);
    }
    rebuild.setDirty();
    if (new CopiedFlags(file, rebuild.header, rebuild.counts).mend(progress)) {
      file.sync();
    }
    rebuild.lower(blocks);
    rebuild.writeFeatures(rebuild.header.incompatibleFeatures() & ~FeatureBits.DIRTY);
  }

  private long run() throws IOException {
    walk.count(progress);
    requireSound();
    file.sync();
    clearUnknownAutoclear();
    fillLastCluster();
    RefcountBlocks blocks = openBlocks();
    raise(blocks);
    if (new CopiedFlags(file, header, counts).mend(progress)) {
      file.sync();
    }
    lower(blocks);
    clearDirty();
    return changed;
  }

  private void requireSound() throws CorruptImageException {
    if (header.corrupt()) {
      throw tooDamaged("it is marked corrupt");
    }
    requireSoundTables();
  }

  private void requireSoundTables() throws CorruptImageException {
    @Nullable String damage = walk.findings().firstDamage();
    if (damage != null) {
      throw tooDamaged(damage);
    }
    long countable = countableEnd();
    if (counts.end() > countable) {
      throw tooDamaged(
          String.format(
              "its refcount table ends with cluster %d, but cluster %d is referenced",
              countable - 1, counts.end() - 1));
    }
    requireFewEnough(file, geometry, counts);
  }

  /** Throws when a cluster has more references than can be counted. */
  static void requireFewEnough(Storage file, Geometry geometry, ClusterCounts counts)
      throws CorruptImageException {
    long end = counts.end();
    for (long cluster = counts.nextReferenced(0, end);
        cluster < end;
        cluster = counts.nextReferenced(cluster + 1, end)) {
      int references = counts.count(cluster);
      if (references == Integer.MAX_VALUE
          || Long.compareUnsigned(references, geometry.refcountMax()) > 0) {
        throw new CorruptImageException(
            String.format(
                "%s: cluster %d (0x%x) has %d references, more than its refcounts of %d bits can"
                    + " count: convert the image to one with wider refcounts",
                file.name(),
                cluster,
                geometry.offsetOf(cluster),
                references,
                geometry.refcountBits()));
      }
    }
  }

  private CorruptImageException tooDamaged(String damage) {
    return new CorruptImageException(
        String.format(
            "%s: %s; too damaged to rebuild refcounts automatically: run `qnbd check --repair"
                + " all` on a copy",
            file.name(), damage));
  }

  private long countableEnd() {
    long entries = geometry.offsetOf(header.refcountTableClusters()) / Long.BYTES;
    return entries * geometry.refcountBlockEntries();
  }

  /**
   * Clusters that only an unknown feature refers to are about to become free, so its data is no
   * longer consistent (qcow2 specification, "Header", {@code autoclear_features}).
   */
  private void clearUnknownAutoclear() throws IOException {
    long known = header.autoclearFeatures() & FeatureBits.AUTOCLEAR_KNOWN;
    if (known != header.autoclearFeatures()) {
      writeHeaderField(HeaderLayout.AUTOCLEAR_AT, known);
      file.sync();
    }
  }

  private void writeHeaderField(int at, long value) throws IOException {
    file.write(at, ByteBuffer.allocate(Long.BYTES).putLong(value).flip());
  }

  /** The file may end inside its last cluster; tables are read and written whole. */
  private void fillLastCluster() throws IOException {
    long end = geometry.offsetOf(counts.end());
    if (file.length() < end) {
      file.setLength(end);
    }
  }

  RefcountBlocks openBlocks() throws IOException {
    long tableBytes = geometry.offsetOf(header.refcountTableClusters());
    long[] table = new long[(int) (tableBytes / Long.BYTES)];
    TableIo.read(file, header.refcountTableOffset(), table, "refcount table");
    return new RefcountBlocks(file, geometry, header.refcountTableOffset(), table);
  }

  void raise(RefcountBlocks blocks) throws IOException {
    long perBlock = geometry.refcountBlockEntries();
    long end = counts.end();
    for (long first = 0; first < end; first += perBlock) {
      long blockEnd = first + perBlock;
      long cluster = counts.nextReferenced(first, blockEnd);
      if (cluster < blockEnd && !blocks.hasBlock(cluster)) {
        addBlock(blocks, first);
      }
      while (cluster < blockEnd) {
        int references = counts.count(cluster);
        if (Long.compareUnsigned(blocks.count(cluster), references) < 0) {
          blocks.set(cluster, references);
          changed++;
        }
        cluster = counts.nextReferenced(cluster + 1, blockEnd);
      }
      progress.progress("raising refcounts", Math.min(blockEnd, end), end);
    }
    blocks.writeDirty();
    file.sync();
  }

  /** Adds the block that counts {@code first} and what follows it. */
  private void addBlock(RefcountBlocks blocks, long first) throws IOException {
    long free = first;
    long end = first + geometry.refcountBlockEntries();
    while (free < end && counts.count(free) != 0) {
      free++;
    }
    long cluster = free < end ? free : takeLast(blocks);
    counts.add(cluster, ClusterUse.REFCOUNT_BLOCK, 1);
    blocks.addBlock(first, cluster);
  }

  /** A counted cluster behind all that is referenced, for a block that finds no room at home. */
  private long takeLast(RefcountBlocks blocks) throws IOException {
    while (true) {
      long last = counts.end();
      if (last >= blocks.countableEnd()) {
        grow(blocks);
      } else if (!blocks.hasBlock(last)) {
        addBlock(blocks, last - last % geometry.refcountBlockEntries());
      } else {
        blocks.set(last, 1);
        return last;
      }
    }
  }

  /** The old table's clusters are free only when the header that names the new one is durable. */
  private void grow(RefcountBlocks blocks) throws IOException {
    RefcountBlocks.Growth growth = blocks.planGrowth();
    long[] oldTable = blocks.grow(growth, this::writeTableFields);
    file.sync();
    for (long cluster : oldTable) {
      counts.remove(cluster);
    }
    for (int index = 0; index < growth.blocks(); index++) {
      counts.add(growth.firstCluster() + index, ClusterUse.REFCOUNT_BLOCK, 1);
    }
    for (int index = 0; index < growth.tableClusters(); index++) {
      long cluster = growth.firstCluster() + growth.blocks() + index;
      counts.add(cluster, ClusterUse.REFCOUNT_TABLE, 1);
    }
  }

  void writeTableFields(long offset, int clusters) throws IOException {
    ByteBuffer fields = ByteBuffer.allocate(Long.BYTES + Integer.BYTES);
    file.write(
        HeaderLayout.REFCOUNT_TABLE_OFFSET_AT, fields.putLong(offset).putInt(clusters).flip());
  }

  /** Also behind the end of the file: it will grow over what is counted there. */
  private void lower(RefcountBlocks blocks) throws IOException {
    long perBlock = geometry.refcountBlockEntries();
    long changedBefore = changed;
    for (long first = 0; first < blocks.countableEnd(); first += perBlock) {
      if (!blocks.hasBlock(first)) {
        continue;
      }
      for (long cluster = first; cluster < first + perBlock; cluster++) {
        int references = counts.count(cluster);
        if (Long.compareUnsigned(blocks.count(cluster), references) > 0) {
          blocks.set(cluster, references);
          changed++;
        }
      }
      progress.progress("lowering refcounts", first + perBlock, blocks.countableEnd());
    }
    if (changed != changedBefore) {
      blocks.writeDirty();
      file.sync();
    }
  }

  private void clearDirty() throws IOException {
    if (header.dirty()) {
      writeFeatures(header.incompatibleFeatures() & ~FeatureBits.DIRTY);
    }
  }

  private void setDirty() throws IOException {
    writeFeatures(header.incompatibleFeatures() | FeatureBits.DIRTY);
  }

  private void writeFeatures(long incompatible) throws IOException {
    if (header.version() != 2) {
      writeHeaderField(HeaderLayout.INCOMPATIBLE_AT, incompatible);
      file.sync();
    }
  }

  // ---- for a repair of tables

  /** Whether each cluster that is referenced has a block that counts it. */
  boolean countableAsIs() throws IOException {
    if (counts.end() > countableEnd()) {
      return false;
    }
    long perBlock = geometry.refcountBlockEntries();
    RefcountBlocks blocks = openBlocks();
    long end = counts.end();
    for (long at = counts.nextReferenced(0, end); at < end; ) {
      if (!blocks.hasBlock(at)) {
        return false;
      }
      at = counts.nextReferenced((at / perBlock + 1) * perBlock, end);
    }
    return true;
  }

  /**
   * What new refcounts are to say: what is referenced by {@code references} and, while something is
   * damaged that nobody can follow, at least what the old ones say that can be read.
   */
  RefcountRewrite.Counts countsAtLeast(ClusterCounts references) {
    RefcountCheck old = walk.refcounts();
    return new RefcountRewrite.Counts() {
      @Override
      public long of(long cluster) throws IOException {
        long stored = old.stored(cluster);
        long counted = references.count(cluster);
        return Long.compareUnsigned(stored, counted) > 0 ? stored : counted;
      }

      @Override
      public long next(long from, long end) throws IOException {
        return Math.min(references.nextReferenced(from, end), old.nextStored(from, end));
      }
    };
  }
}
