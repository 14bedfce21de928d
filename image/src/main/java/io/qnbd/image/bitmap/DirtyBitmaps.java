package io.qnbd.image.bitmap;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DirtySink;
import io.qnbd.image.ImageReport;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.bitmap.Bitmap.Content;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapTableEntry;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.metadata.AutoclearBits;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.metadata.L1Tables;
import io.qnbd.image.refcount.Allocator;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The persistent dirty bitmaps of an open image (qcow2 specification, "Bitmaps"): what they say,
 * and the record of what is changed.
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>Before the first change of the disk, in_use is durably set for each bitmap whose entry has
 *       auto: see {@link #begin}. It stays set until all that the bitmap says is durable.
 *   <li>A change is recorded while its range is held, before any of its bytes is written. So
 *       whoever holds all ranges finds each change recorded and done, or neither.
 *   <li>What a bitmap says is replaced as a whole ({@link Content}). A reader that was on the way
 *       through the old one notices, and looks again.
 * </ul>
 *
 * <p>Thread-safe. {@link BitmapOperations} changes the bitmaps.
 */
public final class DirtyBitmaps {
  private static final Logger LOG = LoggerFactory.getLogger(DirtyBitmaps.class);
  private static final DirtyPages[] NONE = {};

  private final LatchedStorage file;
  private final Geometry geometry;
  private final ReentrantLock metadata;
  private final AutoclearBits autoclear;
  private final BitmapDirectory directory;
  private final long autoclearKept;

  /** Why bitmaps of the file are not used; null if all are, as far as they can be believed. */
  private final @Nullable String leftOut;

  /** Those of the enabled bitmaps. Replaced as a whole, under the metadata lock. */
  private volatile DirtyPages[] recording = NONE;

  /** Those of the directory, for readers. Replaced as a whole, under the metadata lock. */
  private volatile List<Bitmap> bitmaps = List.of();

  /** How long the disk is that the bitmaps describe. */
  private volatile long virtualBytes;

  /** Whether the disk may have changed; under the metadata lock. */
  private boolean begun;

  private DirtyBitmaps(
      LatchedStorage file,
      Header header,
      ReentrantLock metadata,
      AutoclearBits autoclear,
      BitmapDirectory directory,
      boolean maintained,
      @Nullable String leftOut)
      throws IOException {
    this.file = file;
    this.geometry = header.geometry();
    this.metadata = metadata;
    this.autoclear = autoclear;
    this.directory = directory;
    this.autoclearKept = maintained ? FeatureBits.BITMAPS : 0;
    this.leftOut = leftOut;
    this.virtualBytes = header.virtualBytes();
    for (Bitmap bitmap : directory.bitmaps()) {
      if (bitmap.entry.usable() && !bitmap.entry.inUse()) {
        bitmap.content(stored(bitmap));
      }
    }
    publish();
  }

  /**
   * The bitmaps of an image. A directory that is damaged is no reason not to use the disk: then
   * there are no bitmaps, the log says why, and the first change ends the truth of all of them. The
   * same goes for bitmaps that name clusters which are something else.
   *
   * @param l1Tables those of the disk and of its snapshots, of an image that is written to; null
   *     where bitmaps are only read
   */
  public static DirtyBitmaps open(
      LatchedStorage file,
      Header header,
      ReentrantLock metadata,
      Allocator allocator,
      AutoclearBits autoclear,
      @Nullable L1Tables l1Tables)
      throws IOException {
    try {
      BitmapDirectory directory = BitmapDirectory.read(file, header, allocator, autoclear);
      if (l1Tables != null && !directory.bitmaps().isEmpty()) {
        BitmapClusters.requireTheirs(file, header, allocator, directory.bitmaps(), l1Tables);
      }
      return new DirtyBitmaps(
          file, header, metadata, autoclear, directory, true, outOfDate(file.name(), header));
    } catch (CorruptImageException e) {
      LOG.warn("{}, so none of its bitmaps is used", e.getMessage());
      BitmapDirectory none = BitmapDirectory.empty(file, header.geometry(), allocator, autoclear);
      return new DirtyBitmaps(
          file, header, metadata, autoclear, none, false, String.valueOf(e.getMessage()));
    }
  }

  private static @Nullable String outOfDate(String fileName, Header header) {
    boolean unknown =
        header.extension(HeaderExtension.BITMAPS) != null
            && (header.autoclearFeatures() & FeatureBits.BITMAPS) == 0;
    return unknown
        ? fileName + ": was changed by software that knows no bitmaps, so none can be believed"
        : null;
  }

  /** No bitmaps, whatever the image has, which is read only. */
  public static DirtyBitmaps none(
      LatchedStorage file,
      Header header,
      ReentrantLock metadata,
      Allocator allocator,
      AutoclearBits autoclear)
      throws IOException {
    BitmapDirectory none = BitmapDirectory.empty(file, header.geometry(), allocator, autoclear);
    return new DirtyBitmaps(file, header, metadata, autoclear, none, false, null);
  }

  /**
   * The bitmaps as the file has them, for a look at an image that may be open elsewhere.
   *
   * @throws CorruptImageException when anything about them is not as it must be
   */
  public static List<ImageReport.Bitmap> describe(ImageFile file, Header header)
      throws IOException {
    List<ImageReport.Bitmap> described = new ArrayList<>();
    for (Bitmap bitmap : BitmapDirectory.read(file, header)) {
      BitmapEntry entry = bitmap.entry;
      String name = entry.name();
      described.add(
          new ImageReport.Bitmap(
              name == null ? "?" : name, entry.granularityBytes(), entry.inUse(), entry.auto()));
    }
    return described;
  }

  /**
   * Where the flags are of all bitmaps that record and are not marked as in use.
   *
   * @throws CorruptImageException when anything about the bitmaps is not as it must be
   */
  public static List<Long> recordingFlags(ImageFile file, Header header) throws IOException {
    return BitmapDirectory.read(file, header).stream()
        .filter(bitmap -> bitmap.entry.auto() && !bitmap.entry.inUse())
        .map(bitmap -> bitmap.entryAt + BitmapEntry.FLAGS_AT)
        .toList();
  }

  // ---- recording

  /**
   * Something in {@code [offset, offset + bytes)} is about to change. The caller holds the range
   * and has called {@link #begin} in this session.
   */
  public void record(long offset, long bytes) {
    for (DirtyPages pages : recording) {
      pages.set(offset, bytes);
    }
  }

  /**
   * Before the first change of the format's structures: clears the autoclear bits of all that is
   * not kept up to date. Durable when this returns. The metadata lock is held.
   */
  public void clearAutoclear() throws IOException {
    autoclear.keepOnly(autoclearKept);
  }

  /**
   * Before the first change of the disk: marks in the file each bitmap that must record it as one
   * that is out of date there. Durable when this returns. The metadata lock is held.
   */
  public void begin() throws IOException {
    boolean marked = false;
    for (Bitmap bitmap : directory.bitmaps()) {
      if (bitmap.entry.auto() && !bitmap.entry.inUse()) {
        directory.setFlags(bitmap, bitmap.entry.flags() | BitmapEntry.IN_USE);
        marked = true;
      }
    }
    if (marked) {
      file.sync();
    }
    begun = true;
  }

  // ---- reading

  /** All bitmaps whose name can be said, in the order of the directory. */
  public List<BitmapInfo> list() {
    List<BitmapInfo> infos = new ArrayList<>();
    for (Bitmap bitmap : bitmaps) {
      String name = bitmap.name();
      if (name != null) {
        infos.add(bitmap.info(name));
      }
    }
    return infos;
  }

  /** Throws, with the reason, if bitmaps of the file are not used because they are damaged. */
  public void requireUndamaged() throws CorruptImageException {
    if (leftOut != null && autoclearKept == 0) {
      throw new CorruptImageException(leftOut);
    }
  }

  /** See {@link io.qnbd.image.Bitmaps#requireAllListed}. */
  public void requireAllListed() throws CorruptImageException {
    if (leftOut != null) {
      throw new CorruptImageException(leftOut);
    }
    if (bitmaps.stream().anyMatch(bitmap -> bitmap.name() == null)) {
      throw new CorruptImageException(file.name() + ": a bitmap's name is not UTF-8");
    }
  }

  /** See {@link io.qnbd.image.DiskImage#dirtyExtents}. */
  public void extents(String name, long offset, long bytes, DirtySink sink) throws IOException {
    Objects.checkFromIndexSize(offset, bytes, virtualBytes);
    Bitmap bitmap = requireUsable(name);
    int granularityBits = bitmap.granularityBits();
    int pageBits = StoredBits.pageBits(geometry);
    Run run = new Run(sink);
    long end = offset + bytes;
    for (long at = offset; at < end; ) {
      Content content = bitmap.content();
      if (content == null) {
        throw unknown(name);
      }
      long firstBit = (at >>> granularityBits) & -pageBits;
      long[] words = words(content, firstBit, pageBits);
      if (!bitmap.says(content)) {
        continue; // what was read may have been given away meanwhile
      }
      long pageEnd = Math.min(end, (firstBit + pageBits) << granularityBits);
      if (!run.add(words, firstBit << granularityBits, granularityBits, at, pageEnd)) {
        return;
      }
      at = pageEnd;
    }
    run.end();
  }

  /** The bits of a page; an array of one word stands for bits that are all like those. */
  private long[] words(Content content, long firstBit, int pageBits) throws IOException {
    if (content.allOnes()) {
      return new long[] {-1};
    }
    StoredBits stored = content.stored();
    long entry = stored == null ? 0 : stored.tableEntry(firstBit);
    if (BitmapTableEntry.allOnes(entry)) {
      return new long[] {-1};
    }
    boolean hasData = BitmapTableEntry.dataOffset(entry) != 0;
    if (!hasData && !content.dirty().any(firstBit, pageBits)) {
      return new long[] {0};
    }
    long[] words = new long[pageBits / Long.SIZE];
    if (stored != null && hasData) {
      stored.addTo(entry, firstBit, words);
    }
    content.dirty().addTo(firstBit, words);
    return words;
  }

  private UnsupportedImageException unknown(String name) {
    return new UnsupportedImageException(
        file.name() + ": there is no dirty bitmap named " + name + " that can be believed");
  }

  /** Joins pieces that say the same. */
  private static final class Run {
    private final DirtySink sink;
    private long bytes;
    private boolean dirty;

    Run(DirtySink sink) {
      this.sink = sink;
    }

    /**
     * Adds what {@code words}, whose first bit stands for what is at {@code start}, say of {@code
     * [from, to)}.
     *
     * @return whether the sink wants more
     */
    boolean add(long[] words, long start, int granularityBits, long from, long to) {
      if (words.length == 1 && (words[0] == 0 || words[0] == -1)) {
        return add(to - from, words[0] != 0);
      }
      for (long at = from; at < to; ) {
        int bit = (int) ((at - start) >>> granularityBits);
        boolean set = isSet(words, bit);
        int next = bit + 1;
        while (next < words.length * Long.SIZE && isSet(words, next) == set) {
          next += wholeWord(words, next, set) ? Long.SIZE : 1;
        }
        long pieceEnd = Math.min(to, start + ((long) next << granularityBits));
        if (!add(pieceEnd - at, set)) {
          return false;
        }
        at = pieceEnd;
      }
      return true;
    }

    private static boolean isSet(long[] words, int bit) {
      return (words[bit / Long.SIZE] >>> bit & 1) != 0;
    }

    private static boolean wholeWord(long[] words, int bit, boolean set) {
      return bit % Long.SIZE == 0 && words[bit / Long.SIZE] == (set ? -1 : 0);
    }

    private boolean add(long more, boolean moreDirty) {
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

  // ---- for those who change bitmaps

  ReentrantLock metadata() {
    return metadata;
  }

  LatchedStorage file() {
    return file;
  }

  Geometry geometry() {
    return geometry;
  }

  BitmapDirectory directory() {
    return directory;
  }

  long virtualBytes() {
    return virtualBytes;
  }

  void virtualBytes(long bytes) {
    virtualBytes = bytes;
  }

  /** Whether the disk may have changed. The metadata lock is held. */
  boolean begun() {
    return begun;
  }

  List<Bitmap> all() {
    return bitmaps;
  }

  @Nullable Bitmap find(String name) {
    for (Bitmap bitmap : bitmaps) {
      if (name.equals(bitmap.name())) {
        return bitmap;
      }
    }
    return null;
  }

  /** A bitmap that can be believed. */
  Bitmap requireUsable(String name) throws UnsupportedImageException {
    Bitmap bitmap = find(name);
    if (bitmap == null || !bitmap.usable()) {
      throw unknown(name);
    }
    return bitmap;
  }

  long bits(Bitmap bitmap, long bytes) {
    return Math.ceilDiv(bytes, 1L << bitmap.granularityBits());
  }

  /** No bit is set, whatever the file has. */
  Content cleared(Bitmap bitmap) {
    return new Content(null, false, newPages(bitmap));
  }

  /** What the file has, and no more. */
  Content stored(Bitmap bitmap) throws IOException {
    StoredBits bits = new StoredBits(file, geometry, bitmap.entry);
    return new Content(bits, false, newPages(bitmap));
  }

  DirtyPages newPages(Bitmap bitmap) {
    return new DirtyPages(bitmap.granularityBits(), bits(bitmap, virtualBytes));
  }

  /** Tells readers and writers which bitmaps there are now. The metadata lock is held. */
  void publish() {
    bitmaps = directory.bitmaps();
    publishRecording();
  }

  /** Tells writers where to record. The metadata lock, or all guest clusters, are held. */
  void publishRecording() {
    recording =
        bitmaps.stream()
            .filter(Bitmap::enabled)
            .map(Bitmap::content)
            .filter(Objects::nonNull)
            .map(Content::dirty)
            .toArray(DirtyPages[]::new);
    if (recording.length == 0) {
      recording = NONE;
    }
  }
}
