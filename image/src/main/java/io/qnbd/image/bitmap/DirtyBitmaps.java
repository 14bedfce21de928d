package io.qnbd.image.bitmap;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DirtySink;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapTableEntry;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.util.BitSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The persistent dirty bitmaps of an image that is open for reading (qcow2 specification,
 * "Bitmaps").
 *
 * <p>The directory is read when the image is opened; tables and data when somebody asks, a page at
 * a time. Thread-safe.
 */
public final class DirtyBitmaps {
  private static final Logger LOG = LoggerFactory.getLogger(DirtyBitmaps.class);

  private final ImageFile file;
  private final Geometry geometry;
  private final long virtualBytes;
  private final Map<String, BitmapEntry> bitmaps;
  private final PageCache cache;

  private DirtyBitmaps(ImageFile file, Header header, Map<String, BitmapEntry> bitmaps) {
    this.file = file;
    this.geometry = header.geometry();
    this.virtualBytes = header.virtualBytes();
    this.bitmaps = bitmaps;
    this.cache = new PageCache(file, header.clusterBytes());
  }

  /**
   * The bitmaps of an image. A directory that is damaged is no reason not to read the disk: then
   * there are no bitmaps, and the log says why.
   */
  public static DirtyBitmaps read(Storage storage, Header header) throws IOException {
    ImageFile file = ImageFile.of(storage);
    try {
      return new DirtyBitmaps(file, header, BitmapDirectory.read(file, header));
    } catch (CorruptImageException e) {
      LOG.warn("{}, so none of its bitmaps is used", e.getMessage());
      return new DirtyBitmaps(file, header, Map.of());
    }
  }

  /** No bitmaps, whatever the image has. */
  public static DirtyBitmaps none(Storage storage, Header header) throws IOException {
    return new DirtyBitmaps(ImageFile.of(storage), header, Map.of());
  }

  /** The bitmaps that may be believed, in the order of the directory. */
  public List<BitmapInfo> list() {
    return bitmaps.entrySet().stream()
        .map(bitmap ->
            new BitmapInfo(
                bitmap.getKey(), bitmap.getValue().granularityBytes(), bitmap.getValue().auto()))
        .toList();
  }

  /** See {@link io.qnbd.image.DiskImage#dirtyExtents}. */
  public void extents(String name, long offset, long bytes, DirtySink sink) throws IOException {
    BitmapEntry bitmap = bitmaps.get(name);
    if (bitmap == null) {
      throw new UnsupportedImageException(
          file.name() + ": there is no dirty bitmap named " + name + " that can be believed");
    }
    Objects.checkFromIndexSize(offset, bytes, virtualBytes);
    Run run = new Run(sink);
    int coverageBits = geometry.clusterBits() + 3 + bitmap.granularityBits(); // 8 bits a byte
    long end = offset + bytes;
    boolean goOn = true;
    for (long at = offset; at < end && goOn; ) {
      long index = at >>> coverageBits;
      long pieceEnd = Math.min(end, (index + 1) << coverageBits);
      long entry = tableEntry(name, bitmap, index);
      long data = BitmapTableEntry.dataOffset(entry);
      goOn =
          data == 0
              ? run.add(pieceEnd - at, BitmapTableEntry.allOnes(entry))
              : addCluster(bitmap, data, at, pieceEnd, run);
      at = pieceEnd;
    }
    if (goOn) {
      run.end();
    }
  }

  private long tableEntry(String name, BitmapEntry bitmap, long index) throws IOException {
    long at = bitmap.tableOffset() + index * BitmapTableEntry.BYTES;
    int inPage = (int) (at % cache.pageBytes());
    long entry = cache.page(at - inPage).getLong(inPage);
    long data = BitmapTableEntry.dataOffset(entry);
    if (BitmapTableEntry.reservedBits(entry) != 0
        || geometry.inCluster(data) != 0
        || data >= file.fileBytes()) {
      throw new CorruptImageException(
          "%s: entry %d of the table of bitmap %s is 0x%x, which names no cluster of the file"
              .formatted(file.name(), index, name, entry));
    }
    return entry;
  }

  /** Tells what one cluster of data says of {@code [from, to)}; returns whether to go on. */
  private boolean addCluster(BitmapEntry bitmap, long data, long from, long to, Run run)
      throws IOException {
    int granularityBits = bitmap.granularityBits();
    int pageBits = cache.pageBytes() * Byte.SIZE;
    int clusterBits = geometry.clusterBytes() * Byte.SIZE;
    for (long at = from; at < to; ) {
      long bit = at >>> granularityBits;
      int inCluster = (int) (bit & (clusterBits - 1));
      int inPage = inCluster & (pageBits - 1);
      // The least significant bit first, as the format has it.
      BitSet page = BitSet.valueOf(cache.page(data + (inCluster - inPage) / Byte.SIZE));
      long firstBit = bit - inPage;
      long pageEnd = Math.min(to, (firstBit + pageBits) << granularityBits);
      while (at < pageEnd) {
        int here = (int) ((at >>> granularityBits) - firstBit);
        boolean dirty = page.get(here);
        int next = dirty ? page.nextClearBit(here) : page.nextSetBit(here);
        long pieceEnd =
            next < 0 ? pageEnd : Math.min(pageEnd, (firstBit + next) << granularityBits);
        if (!run.add(pieceEnd - at, dirty)) {
          return false;
        }
        at = pieceEnd;
      }
    }
    return true;
  }

  /** Joins pieces that say the same. */
  private static final class Run {
    private final DirtySink sink;
    private long bytes;
    private boolean dirty;

    Run(DirtySink sink) {
      this.sink = sink;
    }

    /** Returns whether the sink wants more. */
    boolean add(long more, boolean moreDirty) {
      if (bytes > 0 && moreDirty != dirty) {
        if (!sink.extent(bytes, dirty)) {
          return false;
        }
        bytes = 0;
      }
      dirty = moreDirty;
      bytes += more;
      return true;
    }

    void end() {
      if (bytes > 0) {
        sink.extent(bytes, dirty);
      }
    }
  }
}
