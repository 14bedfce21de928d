package io.qnbd.image.refcount;

import io.qnbd.image.NoSpaceException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.TableIo;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The refcount table and a write-back cache of refcount blocks (qcow2 specification, "Host cluster
 * management").
 *
 * <p>Invariant: whatever a cached block says may be written to the file at any time. Its increments
 * are of clusters that nothing refers to yet, its decrements of references that are durably gone.
 * So a dirty block has no order towards anything, and eviction is a plain write.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class RefcountBlocks {
  /** Blocks kept at least, whatever their size: one being read, one written, one searched. */
  private static final int BLOCKS_MIN = 4;

  /** 16 MiB of 64 KiB blocks count 512 GiB. */
  private static final int CACHE_BYTES = 16 << 20;

  /** QEMU's limit; it refuses images with a longer table. */
  private static final int TABLE_BYTES_MAX = 8 << 20;

  private static final int SECTOR_BYTES = 512;

  private static final class Block {
    final byte[] bytes;
    int dirtyFrom = Integer.MAX_VALUE;
    int dirtyTo;

    Block(int bytes) {
      this.bytes = new byte[bytes];
    }

    boolean dirty() {
      return dirtyFrom < dirtyTo;
    }
  }

  private final Storage file;
  private final Geometry geometry;
  private final int blocksMax;
  private final LinkedHashMap<Integer, Block> cache = new LinkedHashMap<>(16, 0.75f, true);
  private final Guard guard;
  private long tableOffset;
  private long[] table;
  private long writes;

  /** The block asked for last, which is asked for again and again. */
  private int lastIndex = -1;

  private @Nullable Block last;

  /** For images that no guest writes to. */
  public RefcountBlocks(Storage file, Geometry geometry, long tableOffset, long[] table) {
    this(file, geometry, tableOffset, table, Guard.ofReader(file.name()));
  }

  /**
   * The blocks that a table names.
   *
   * @param guard is told when table or blocks are not what they must be
   */
  public RefcountBlocks(
      Storage file, Geometry geometry, long tableOffset, long[] table, Guard guard) {
    this.guard = guard;
    this.file = file;
    this.geometry = geometry;
    this.tableOffset = tableOffset;
    this.table = table;
    this.blocksMax = Math.max(BLOCKS_MIN, CACHE_BYTES / geometry.clusterBytes());
  }

  /** Writes of refcount blocks and table entries so far. */
  public long writes() {
    return writes;
  }

  long tableOffset() {
    return tableOffset;
  }

  int tableEntries() {
    return table.length;
  }

  /** The first cluster that the table, as long as it is, can't count. */
  public long countableEnd() {
    return table.length * geometry.refcountBlockEntries();
  }

  private long tableIndex(long cluster) {
    return cluster / geometry.refcountBlockEntries();
  }

  private int entryIndex(long cluster) {
    return (int) (cluster & (geometry.refcountBlockEntries() - 1));
  }

  /** Whether there is a block that counts {@code cluster}; without one its count is 0. */
  public boolean hasBlock(long cluster) {
    long index = tableIndex(cluster);
    return index < table.length && table[(int) index] != 0;
  }

  /** The refcount of a host cluster. */
  public long count(long cluster) throws IOException {
    if (!hasBlock(cluster)) {
      return 0;
    }
    Block block = block((int) tableIndex(cluster));
    return RefcountEntries.get(block.bytes, geometry.refcountOrder(), entryIndex(cluster));
  }

  /** Sets the refcount of a cluster; only a damaged image has no block for it. */
  public void set(long cluster, long count) throws IOException {
    if (!hasBlock(cluster)) {
      throw guard.found(
          String.format(
              "no refcount block counts cluster %d (0x%x), which is in use",
              cluster, geometry.offsetOf(cluster)));
    }
    Block block = block((int) tableIndex(cluster));
    int index = entryIndex(cluster);
    RefcountEntries.set(block.bytes, geometry.refcountOrder(), index, count);
    int at = RefcountEntries.byteOf(geometry.refcountOrder(), index);
    int sector = at & -SECTOR_BYTES;
    block.dirtyFrom = Math.min(block.dirtyFrom, sector);
    block.dirtyTo = Math.max(block.dirtyTo, sector + SECTOR_BYTES);
  }

  private Block block(int tableIndex) throws IOException {
    if (tableIndex == lastIndex && last != null) {
      return last;
    }
    Block cached = cache.get(tableIndex);
    if (cached != null) {
      lastIndex = tableIndex;
      last = cached;
      return cached;
    }
    long at = table[tableIndex];
    if (geometry.inCluster(at) != 0 || at < 0 || at >= file.length()) {
      throw guard.found(
          String.format(
              "refcount table entry %d is 0x%x, which is not a cluster of the file",
              tableIndex, at));
    }
    Block block = new Block(geometry.clusterBytes());
    int read = file.read(at, ByteBuffer.wrap(block.bytes));
    if (read < block.bytes.length) {
      throw guard.found(
          String.format("the refcount block at 0x%x ends past the end of the file", at));
    }
    keep(tableIndex, block);
    return block;
  }

  private void keep(int tableIndex, Block block) throws IOException {
    if (cache.size() >= blocksMax) {
      Iterator<Map.Entry<Integer, Block>> eldest = cache.entrySet().iterator();
      Map.Entry<Integer, Block> victim = eldest.next();
      write(victim.getKey(), victim.getValue());
      eldest.remove();
      lastIndex = -1;
    }
    cache.put(tableIndex, block);
  }

  private void write(int tableIndex, Block block) throws IOException {
    if (!block.dirty()) {
      return;
    }
    int from = block.dirtyFrom;
    int to = Math.min(block.dirtyTo, block.bytes.length);
    file.write(table[tableIndex] + from, ByteBuffer.wrap(block.bytes, from, to - from));
    writes++;
    block.dirtyFrom = Integer.MAX_VALUE;
    block.dirtyTo = 0;
  }

  /** Writes the changed part of each changed block; durable with the next sync. */
  public void writeDirty() throws IOException {
    for (Map.Entry<Integer, Block> entry : cache.entrySet()) {
      write(entry.getKey(), entry.getValue());
    }
  }

  /**
   * Makes {@code cluster}, which must be free and below {@link #countableEnd}, the block that
   * counts itself and its neighbours.
   *
   * <p>The block is durable before the table entry is written: a table entry to a block that reads
   * as zeroes would count the block itself as free.
   */
  public void addBlock(long cluster) throws IOException {
    addBlock(cluster, cluster);
  }

  /**
   * Makes the block that counts {@code counted} and its neighbours out of {@code cluster}, which
   * nothing refers to. Where that is no neighbour, another block counts it as used already, and
   * that is durable, too, before the table entry is written.
   */
  public void addBlock(long counted, long cluster) throws IOException {
    int index = (int) tableIndex(counted);
    if (table[index] != 0) {
      throw new AssertionError("a block counts cluster " + counted + " already");
    }
    Block block = new Block(geometry.clusterBytes());
    if (tableIndex(cluster) == index) {
      RefcountEntries.set(block.bytes, geometry.refcountOrder(), entryIndex(cluster), 1);
    } else {
      writeDirty();
    }
    file.write(geometry.offsetOf(cluster), ByteBuffer.wrap(block.bytes));
    file.sync();
    writeTableEntry(index, geometry.offsetOf(cluster));
    table[index] = geometry.offsetOf(cluster);
    writes += 2;
    keep(index, block);
  }

  private void writeTableEntry(int index, long value) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(Long.BYTES).putLong(value).flip();
    file.write(tableOffset + (long) index * Long.BYTES, bytes);
  }

  int tableClusters() {
    return (int) geometry.clustersFor((long) table.length * Long.BYTES);
  }

  /** Where the block is that the table names at {@code index}; 0 where there is none. */
  long blockCluster(int index) {
    return geometry.clusterOf(table[index]);
  }

  /**
   * Puts a block into {@code cluster}, which is counted already. The copy, and all counts that were
   * changed before, are durable before the table's entry is written. Counts that are raised later
   * are durable no sooner than that entry, by the sync that makes them so.
   *
   * @return the block's old cluster, to be released
   */
  long moveBlock(int index, long cluster) throws IOException {
    Block block = block(index);
    writeDirty();
    file.write(geometry.offsetOf(cluster), ByteBuffer.wrap(block.bytes));
    file.sync();
    long old = geometry.clusterOf(table[index]);
    writeTableEntry(index, geometry.offsetOf(cluster));
    table[index] = geometry.offsetOf(cluster);
    writes += 2;
    return old;
  }

  /**
   * Puts the table into clusters from {@code first} on, which are counted already; durable before
   * the header names it.
   *
   * @return the table's old clusters, to be released
   */
  long[] moveTable(long first, HeaderFields header) throws IOException {
    writeDirty();
    long offset = geometry.offsetOf(first);
    TableIo.write(file, offset, table, 0, table.length);
    file.sync();
    header.setRefcountTable(offset, tableClusters());
    long[] old = new long[tableClusters()];
    for (int i = 0; i < old.length; i++) {
      old[i] = geometry.clusterOf(tableOffset) + i;
    }
    writes += 2;
    tableOffset = offset;
    return old;
  }

  /** Where a longer table goes and what it needs: see {@link #grow}. */
  public record Growth(long firstCluster, int blocks, int tableClusters) {
    public long end() {
      return firstCluster + blocks + tableClusters;
    }
  }

  /** Plans a table that also counts itself, its new blocks and half as much again. */
  public Growth planGrowth() throws NoSpaceException {
    long first = countableEnd();
    long perBlock = geometry.refcountBlockEntries();
    int entriesPerCluster = geometry.clusterBytes() / Long.BYTES;
    int blocks = 1;
    while (true) {
      long entries = table.length + (long) blocks + table.length / 2;
      int tableClusters = Math.toIntExact((entries + entriesPerCluster - 1) / entriesPerCluster);
      int needed = Math.toIntExact((blocks + (long) tableClusters + perBlock - 1) / perBlock);
      if ((long) tableClusters << geometry.clusterBits() > TABLE_BYTES_MAX) {
        throw new NoSpaceException(
            file.name() + ": the image can't grow: its refcount table has reached 8 MiB");
      }
      if (needed <= blocks) {
        return new Growth(first, blocks, tableClusters);
      }
      blocks = needed;
    }
  }

  /**
   * Replaces the table by a longer one. On disk: the new blocks and the new table, a sync, then one
   * write of the header's two fields through {@code header}. Until that write is durable the old
   * table is the valid one, and it counts everything that anything durable refers to.
   *
   * @return the clusters of the old table, to be released once the header is durable
   */
  public long[] grow(Growth growth, HeaderFields header) throws IOException {
    long perBlock = geometry.refcountBlockEntries();
    int entriesPerCluster = geometry.clusterBytes() / Long.BYTES;
    long[] longer = new long[growth.tableClusters() * entriesPerCluster];
    System.arraycopy(table, 0, longer, 0, table.length);
    for (int i = 0; i < growth.blocks(); i++) {
      byte[] bytes = new byte[geometry.clusterBytes()];
      long counted = growth.firstCluster() + i * perBlock;
      long end = Math.min(growth.end(), counted + perBlock);
      for (long cluster = counted; cluster < end; cluster++) {
        RefcountEntries.set(bytes, geometry.refcountOrder(), (int) (cluster - counted), 1);
      }
      long at = geometry.offsetOf(growth.firstCluster() + i);
      file.write(at, ByteBuffer.wrap(bytes));
      longer[table.length + i] = at;
      writes++;
    }
    long newOffset = geometry.offsetOf(growth.firstCluster() + growth.blocks());
    TableIo.write(file, newOffset, longer, 0, longer.length);
    file.sync();
    header.setRefcountTable(newOffset, growth.tableClusters());
    long[] old = new long[table.length / entriesPerCluster];
    for (int i = 0; i < old.length; i++) {
      old[i] = geometry.clusterOf(tableOffset) + i;
    }
    writes += 2;
    tableOffset = newOffset;
    table = longer;
    return old;
  }

  /** The header's fields that this layer changes. */
  @FunctionalInterface
  public interface HeaderFields {
    /** Writes {@code refcount_table_offset} and {@code refcount_table_clusters} in one write. */
    void setRefcountTable(long offset, int clusters) throws IOException;
  }
}
