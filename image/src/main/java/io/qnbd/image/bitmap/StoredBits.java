package io.qnbd.image.bitmap;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapTableEntry;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * What the file has of a bitmap: its table and its data, read when somebody asks, a page at a time
 * (qcow2 specification, "Bitmap table", "Bitmap data").
 *
 * <p>Whoever changes the table or the data afterwards makes a new one of these. Thread-safe.
 */
final class StoredBits {
  private final ImageFile file;
  private final Geometry geometry;
  private final BitmapEntry entry;
  private final PageCache cache;

  StoredBits(Storage storage, Geometry geometry, BitmapEntry entry) throws IOException {
    this.file = ImageFile.of(storage);
    this.geometry = geometry;
    this.entry = entry;
    this.cache = new PageCache(file, geometry.clusterBytes());
  }

  /** How many bits {@link #addTo} gives. */
  static int pageBits(Geometry geometry) {
    return PageCache.pageBytes(geometry.clusterBytes()) * Byte.SIZE;
  }

  /**
   * The entry of the table for the cluster of data that has the bit; 0 behind the table's end,
   * where a disk has just grown.
   */
  long tableEntry(long bit) throws IOException {
    long index = bit / ((long) geometry.clusterBytes() * Byte.SIZE);
    if (index >= entry.tableEntries()) {
      return 0;
    }
    long at = entry.tableOffset() + index * BitmapTableEntry.BYTES;
    int inPage = (int) (at % cache.pageBytes());
    long value = cache.page(at - inPage).getLong(inPage);
    require(value, index);
    return value;
  }

  /** Throws when an entry of the table names no cluster of the file. */
  void require(long value, long index) throws CorruptImageException {
    if (!sound(value)) {
      throw new CorruptImageException(
          "%s: entry %d of the table of bitmap %s is 0x%x, which names no cluster of the file"
              .formatted(file.name(), index, entry.name(), value));
    }
  }

  /** Whether an entry of the table names a cluster of the file, or none. */
  boolean sound(long value) {
    long data = BitmapTableEntry.dataOffset(value);
    return BitmapTableEntry.reservedBits(value) == 0
        && geometry.inCluster(data) == 0
        && data < file.fileBytes();
  }

  /**
   * Adds the bits of the data from {@code firstBit} on, the start of a page, to those in {@code
   * words}.
   *
   * @param tableEntry the one for the bit, which names data
   */
  void addTo(long tableEntry, long firstBit, long[] words) throws IOException {
    long inCluster = firstBit % ((long) geometry.clusterBytes() * Byte.SIZE);
    long at = BitmapTableEntry.dataOffset(tableEntry) + inCluster / Byte.SIZE;
    ByteBuffer page = cache.page(at).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < words.length; i++) {
      words[i] |= page.getLong(i * Long.BYTES);
    }
  }
}
