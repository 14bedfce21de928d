package io.qnbd.image.bitmap;

import io.qnbd.image.bitmap.Bitmap.Content;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapTableEntry;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Puts what bitmaps say into the file, while in_use is set for them, which excuses any mix of old
 * and new data, but nothing else:
 *
 * <pre>
 *   1. data   into the clusters that are there, and into new ones     durable before
 *   2. table  entries that name new clusters or none                  durable before
 *   3. the clusters that no entry names any more are released by the caller, like a guest's
 * </pre>
 *
 * <p>A cut after 1 leaks clusters. Owner: whoever holds the lock of those who change bitmaps.
 */
final class BitmapWriter {
  private static final Logger LOG = LoggerFactory.getLogger(BitmapWriter.class);

  private final LatchedStorage file;
  private final Geometry geometry;
  private final ReentrantLock metadata;
  private final Allocator allocator;

  BitmapWriter(
      LatchedStorage file, Geometry geometry, ReentrantLock metadata, Allocator allocator) {
    this.file = file;
    this.geometry = geometry;
    this.metadata = metadata;
    this.allocator = allocator;
  }

  /** A table that is to replace the one in the file. */
  private static final class Table {
    final Bitmap bitmap;
    final long[] entries;
    final List<Long> unused = new ArrayList<>();
    int firstChanged = Integer.MAX_VALUE;
    int lastChanged = -1;

    private final int clusterBits;

    Table(Bitmap bitmap, long[] entries, int clusterBits) {
      this.bitmap = bitmap;
      this.entries = entries;
      this.clusterBits = clusterBits;
    }

    void set(int index, long entry) {
      long old = entries[index];
      if (entry == old) {
        return;
      }
      if (BitmapTableEntry.dataOffset(old) != 0) {
        unused.add(BitmapTableEntry.dataOffset(old) >>> clusterBits);
      }
      entries[index] = entry;
      firstChanged = Math.min(firstChanged, index);
      lastChanged = index;
    }
  }

  /**
   * Stores bitmaps; durable when this returns. Their in_use flags are set in the file, durably, and
   * stay so.
   *
   * @param diskBytes the disk's size, which their tables are long enough for
   * @return clusters that are to be released once nobody reads the bitmaps as they were before
   */
  List<Long> store(List<Bitmap> bitmaps, long diskBytes) throws IOException {
    List<Table> tables = new ArrayList<>();
    List<HostRun> taken = new ArrayList<>();
    boolean written = false;
    try {
      for (Bitmap bitmap : bitmaps) {
        tables.add(writeData(bitmap, diskBytes, taken));
      }
      file.sync();
      written = true;
    } finally {
      if (!written) {
        giveBack(taken);
      }
    }
    for (Table table : tables) {
      if (table.lastChanged >= 0) {
        long at = table.bitmap.entry.tableOffset() + (long) table.firstChanged * Long.BYTES;
        int count = table.lastChanged - table.firstChanged + 1;
        requireOurs("bitmap table", at, (long) count * Long.BYTES);
        TableIo.write(file, at, table.entries, table.firstChanged, count);
      }
    }
    file.sync();
    return tables.stream().flatMap(table -> table.unused.stream()).toList();
  }

  /** Releases what {@link #store} returned. The metadata lock is held. */
  void release(List<Long> unused) {
    unused.forEach(allocator::release);
  }

  /** Gives back clusters that nothing names. */
  void giveBack(List<HostRun> runs) {
    metadata.lock();
    try {
      runs.forEach(allocator::giveBack);
    } finally {
      metadata.unlock();
    }
  }

  /** The table as the file has it; each entry names nothing or a cluster of the file. */
  long[] readTable(BitmapEntry entry) throws IOException {
    long[] table = new long[entry.tableEntries()];
    TableIo.read(file, entry.tableOffset(), table, "table of a bitmap");
    StoredBits rules = new StoredBits(file, geometry, entry);
    for (int index = 0; index < table.length; index++) {
      rules.require(table[index], index);
    }
    return table;
  }

  /** Throws if what the entry refers to is counted as free. The metadata lock is held. */
  void requireCounted(BitmapEntry entry) throws IOException {
    long table = geometry.clusterOf(entry.tableOffset());
    for (int i = 0; entry.tableEntries() > 0 && i < tableClusters(entry.tableEntries()); i++) {
      requireCounted(entry, table + i);
    }
    for (long value : readTable(entry)) {
      if (BitmapTableEntry.dataOffset(value) != 0) {
        requireCounted(entry, geometry.clusterOf(BitmapTableEntry.dataOffset(value)));
      }
    }
  }

  private void requireCounted(BitmapEntry entry, long cluster) throws IOException {
    if (!allocator.inUse(cluster)) {
      throw allocator
          .guard()
          .found(
              String.format(
                  "bitmap %s refers to cluster %d (0x%x), which is counted as free",
                  entry.name(), cluster, geometry.offsetOf(cluster)));
    }
  }

  private Table writeData(Bitmap bitmap, long diskBytes, List<HostRun> taken) throws IOException {
    Content content = bitmap.content();
    if (content == null) {
      throw new AssertionError("bitmap " + bitmap.name() + " says nothing");
    }
    Table table = new Table(bitmap, readTable(bitmap.entry), geometry.clusterBits());
    long bits = Math.ceilDiv(diskBytes, 1L << bitmap.granularityBits());
    long perCluster = (long) geometry.clusterBytes() * Byte.SIZE;
    if (table.entries.length != Math.ceilDiv(bits, perCluster)) {
      throw new AssertionError(
          "the table of bitmap " + bitmap.name() + " is not as long as needed");
    }
    for (int index = 0; index < table.entries.length; index++) {
      long firstBit = index * perCluster;
      long count = Math.min(perCluster, bits - firstBit);
      long old = table.entries[index];
      if (content.allOnes() && count == perCluster) {
        table.set(index, BitmapTableEntry.ALL_ONES);
      } else if (content.allOnes() || content.dirty().any(firstBit, count)) {
        table.set(index, writeCluster(content, old, firstBit, count, taken));
      } else if (content.stored() == null) {
        table.set(index, 0);
      }
    }
    return table;
  }

  /**
   * Writes a cluster of data of which something was set; returns the table's entry for it. One that
   * the disk ends in has data even if all its bits are set: they would be more if the disk grew.
   */
  private long writeCluster(
      Content content, long old, long firstBit, long count, List<HostRun> taken)
      throws IOException {
    boolean keepsOld = content.stored() != null;
    boolean allOnes = content.allOnes() || (keepsOld && BitmapTableEntry.allOnes(old));
    long at = BitmapTableEntry.dataOffset(old);
    ByteBuffer data = ByteBuffer.allocate(geometry.clusterBytes()).order(ByteOrder.LITTLE_ENDIAN);
    if (keepsOld && at != 0) {
      read(at, data);
    }
    long[] words = new long[data.capacity() / Long.BYTES];
    data.asLongBuffer().get(words);
    content.dirty().addTo(firstBit, words);
    for (int i = 0; allOnes && i < words.length; i++) {
      words[i] |= mask(i, count);
    }
    if (noneSet(words)) {
      return 0;
    }
    if (count == (long) words.length * Long.SIZE && allSet(words)) {
      return BitmapTableEntry.ALL_ONES;
    }
    data.asLongBuffer().put(words);
    if (at == 0) {
      HostRun run = allocate();
      taken.add(run);
      at = geometry.offsetOf(run.first());
    } else {
      requireOurs("bitmap", at, geometry.clusterBytes());
    }
    file.write(at, data);
    return at;
  }

  /** Throws if what is written in its place is, by a damaged table, metadata of another kind. */
  private void requireOurs(String what, long at, long bytes) throws IOException {
    metadata.lock();
    try {
      long first = geometry.clusterOf(at);
      long end = geometry.clusterOf(at + bytes - 1) + 1;
      allocator.guard().requireFree(what, first, end - first);
    } finally {
      metadata.unlock();
    }
  }

  private void read(long at, ByteBuffer data) throws IOException {
    file.read(at, data);
    data.clear(); // the file may end inside the cluster: zeroes
  }

  private HostRun allocate() throws IOException {
    metadata.lock();
    try {
      return allocator.allocate(1);
    } finally {
      metadata.unlock();
    }
  }

  private static boolean noneSet(long[] words) {
    for (long word : words) {
      if (word != 0) {
        return false;
      }
    }
    return true;
  }

  private static boolean allSet(long[] words) {
    for (long word : words) {
      if (word != -1) {
        return false;
      }
    }
    return true;
  }

  /** Those bits of a word that are among the first {@code count} bits of all words. */
  private static long mask(int word, long count) {
    long here = Math.clamp(count - (long) word * Long.SIZE, 0, Long.SIZE);
    return here == 0 ? 0 : -1L >>> (Long.SIZE - here);
  }

  /**
   * Writes a table of the length that {@code entry} says, from {@code from} and then zeroes, into
   * clusters of its own; not durable yet. The metadata lock is held.
   *
   * @return where it is; given back by {@link #giveBack} if nothing comes to name it
   */
  HostRun writeTable(long[] from, int entries) throws IOException {
    HostRun run = allocator.allocateContiguous(tableClusters(entries));
    boolean written = false;
    try {
      TableIo.write(file, geometry.offsetOf(run.first()), Arrays.copyOf(from, entries), 0, entries);
      written = true;
    } finally {
      if (!written) {
        allocator.giveBack(run);
      }
    }
    return run;
  }

  private int tableClusters(int entries) {
    return (int) Math.max(1, geometry.clustersFor((long) entries * Long.BYTES));
  }

  /**
   * Clears the bits behind the end of a disk that gets shorter, for which {@code table} is changed
   * if it has no data there. The metadata lock is held.
   *
   * @param taken gets the clusters that only {@code table} names
   */
  void clearBehindEnd(BitmapEntry entry, long[] table, long diskBytes, List<HostRun> taken)
      throws IOException {
    long perCluster = (long) geometry.clusterBytes() * Byte.SIZE;
    long bits = Math.ceilDiv(diskBytes, entry.granularityBytes());
    int last = (int) (bits / perCluster);
    if (last >= table.length || bits % perCluster == 0) {
      return;
    }
    long at = BitmapTableEntry.dataOffset(table[last]);
    boolean allOnes = BitmapTableEntry.allOnes(table[last]);
    if (at == 0 && !allOnes) {
      return;
    }
    ByteBuffer data = ByteBuffer.allocate(geometry.clusterBytes());
    if (allOnes) {
      Arrays.fill(data.array(), (byte) -1);
      HostRun run = allocator.allocate(1);
      taken.add(run);
      at = geometry.offsetOf(run.first());
      table[last] = at;
    } else {
      requireOurs("bitmap", at, geometry.clusterBytes());
      read(at, data);
    }
    for (int bit = (int) (bits % perCluster); bit < perCluster; bit++) {
      int index = bit / Byte.SIZE;
      data.put(index, (byte) (data.get(index) & ~(1 << bit % Byte.SIZE)));
    }
    file.write(at, data.clear());
  }

  /**
   * Releases the clusters of a table that the file no longer names, and those of its data from the
   * entry {@code from} on. Of what is damaged nothing is released: leaks, which a check finds. The
   * metadata lock is held.
   */
  void release(BitmapEntry entry, int from) throws IOException {
    int clusters = tableClusters(entry.tableEntries());
    long first = geometry.clusterOf(entry.tableOffset());
    boolean sound =
        entry.tableEntries() > 0
            && entry.tableOffset() > 0
            && geometry.inCluster(entry.tableOffset()) == 0
            && entry.tableOffset() <= file.length() - geometry.offsetOf(clusters);
    if (!sound) {
      LOG.warn("{}: the table of bitmap {} is damaged and stays", file.name(), entry.name());
      return;
    }
    long[] table = new long[entry.tableEntries()];
    TableIo.read(file, entry.tableOffset(), table, "table of a bitmap");
    StoredBits rules = new StoredBits(file, geometry, entry);
    for (int index = from; index < table.length; index++) {
      long data = BitmapTableEntry.dataOffset(table[index]);
      if (data != 0 && rules.sound(table[index])) {
        allocator.release(geometry.clusterOf(data));
      }
    }
    for (int i = 0; i < clusters; i++) {
      allocator.release(first + i);
    }
  }
}
