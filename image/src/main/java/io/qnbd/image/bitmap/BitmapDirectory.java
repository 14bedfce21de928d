package io.qnbd.image.bitmap;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.metadata.AutoclearBits;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The directory of an open image's bitmaps (qcow2 specification, "Bitmap directory").
 *
 * <p>An entry's flags are changed where they are: four bytes, in one sector. Anything else makes a
 * new directory, durable in clusters of its own before the header names it, so a power cut leaves
 * the old directory or the new.
 *
 * <p>Owner: the image's metadata lock.
 */
final class BitmapDirectory {
  private final LatchedStorage file;
  private final Geometry geometry;
  private final Allocator allocator;
  private final DirectoryPlace place;
  private List<Bitmap> bitmaps;
  private long offset;
  private long bytes;

  private BitmapDirectory(
      LatchedStorage file, Geometry geometry, Allocator allocator, AutoclearBits autoclear) {
    this.file = file;
    this.geometry = geometry;
    this.allocator = allocator;
    this.place = new DirectoryPlace(file, autoclear);
    this.bitmaps = List.of();
  }

  /** A directory without bitmaps, whatever the image has. */
  static BitmapDirectory empty(
      LatchedStorage file, Geometry geometry, Allocator allocator, AutoclearBits autoclear) {
    return new BitmapDirectory(file, geometry, allocator, autoclear);
  }

  /**
   * Reads the directory. It has no bitmaps where the header says that they may all be out of date.
   *
   * @throws CorruptImageException when anything about the bitmaps is not as it must be
   */
  static BitmapDirectory read(
      LatchedStorage file, Header header, Allocator allocator, AutoclearBits autoclear)
      throws IOException {
    BitmapDirectory directory = empty(file, header.geometry(), allocator, autoclear);
    BitmapsExtension extension = extension(ImageFile.of(file), header);
    if (extension != null) {
      directory.bitmaps = List.copyOf(read(ImageFile.of(file), header, extension));
      directory.offset = extension.directoryOffset();
      directory.bytes = extension.directoryBytes();
    }
    return directory;
  }

  /**
   * The bitmaps of a directory, in its order.
   *
   * @throws CorruptImageException when anything about the bitmaps is not as it must be
   */
  static List<Bitmap> read(ImageFile file, Header header) throws IOException {
    BitmapsExtension extension = extension(file, header);
    return extension == null ? List.of() : read(file, header, extension);
  }

  private static @Nullable BitmapsExtension extension(ImageFile file, Header header)
      throws CorruptImageException {
    HeaderExtension extension = header.extension(HeaderExtension.BITMAPS);
    if (extension == null || (header.autoclearFeatures() & FeatureBits.BITMAPS) == 0) {
      return null;
    }
    return BitmapsExtension.parse(
        file.name(), extension.data(), header.clusterBytes(), file.fileBytes());
  }

  /** Entry by entry, so that nothing is allocated that the directory merely claims. */
  private static List<Bitmap> read(ImageFile file, Header header, BitmapsExtension directory)
      throws IOException {
    List<Bitmap> bitmaps = new ArrayList<>();
    Set<String> names = new HashSet<>();
    long at = directory.directoryOffset();
    long end = at + directory.directoryBytes();
    for (int index = 0; index < directory.bitmaps(); index++) {
      ByteBuffer fixedPart = file.read(at, BitmapEntry.FIXED_BYTES);
      long entryBytes = BitmapEntry.bytes(fixedPart);
      if (entryBytes > end - at) {
        throw new CorruptImageException(
            "%s: bitmap %d runs past the end of the bitmap directory"
                .formatted(file.name(), index));
      }
      ByteBuffer nameBytes =
          file.read(at + BitmapEntry.nameAt(fixedPart), BitmapEntry.nameBytes(fixedPart));
      BitmapEntry entry = BitmapEntry.parse(file.name(), index, fixedPart, nameBytes);
      String name = entry.name();
      if (name != null && !names.add(name)) {
        throw new CorruptImageException(
            "%s: bitmap %d has a name that another one has".formatted(file.name(), index));
      }
      if (entry.usable() && !entry.inUse()) {
        entry.requireTable(
            file.name(), index, header.clusterBytes(), header.virtualBytes(), file.fileBytes());
      }
      bitmaps.add(new Bitmap(entry, at));
      at += entryBytes;
    }
    if (at != end) {
      throw new CorruptImageException(
          "%s: the bitmap directory is %d bytes longer than its %d bitmaps"
              .formatted(file.name(), end - at, directory.bitmaps()));
    }
    return bitmaps;
  }

  /** In the order of the directory. */
  List<Bitmap> bitmaps() {
    return bitmaps;
  }

  /** Writes a bitmap's flags; durable with the next sync. */
  void setFlags(Bitmap bitmap, int flags) throws IOException {
    ByteBuffer field = ByteBuffer.allocate(Integer.BYTES).putInt(flags).flip();
    file.write(bitmap.entryAt + BitmapEntry.FLAGS_AT, field);
    bitmap.entry = bitmap.entry.withFlags(flags);
  }

  /** Throws when the image has no room for a directory of so many bitmaps. */
  void requireRoom() throws IOException {
    if (bitmaps.isEmpty()) {
      place.requireRoom(new BitmapsExtension(1, BitmapEntry.FIXED_BYTES, geometry.clusterBytes()));
    }
  }

  /**
   * A bitmap and the entry that it is to have.
   *
   * @param bitmap one without a place in the file if {@code entryAt} is 0
   */
  record Change(Bitmap bitmap, BitmapEntry entry) {}

  /**
   * Makes these the bitmaps of the image. What the entries refer to has been written; it and all
   * else is durable when this returns. The clusters of the old directory are released, those of
   * tables and data are not.
   */
  void replace(List<Change> changes) throws IOException {
    if (changes.isEmpty()) {
      file.sync();
      latching(place::remove);
      release(offset, bytes);
      bitmaps = List.of();
      offset = 0;
      bytes = 0;
      return;
    }
    List<ByteBuffer> entries = new ArrayList<>();
    long newBytes = 0;
    for (Change change : changes) {
      ByteBuffer entry = encode(change);
      newBytes += entry.remaining();
      entries.add(entry);
    }
    HostRun run = allocator.allocateContiguous((int) geometry.clustersFor(newBytes));
    long newOffset = geometry.offsetOf(run.first());
    boolean written = false;
    try {
      long at = newOffset;
      for (ByteBuffer entry : entries) {
        int length = entry.remaining();
        file.write(at, entry);
        at += length;
      }
      file.sync();
      written = true;
    } finally {
      if (!written) {
        allocator.giveBack(run);
      }
    }
    BitmapsExtension next = new BitmapsExtension(changes.size(), (int) newBytes, newOffset);
    allocator.guard().note(MetadataUse.BITMAPS, run.first(), run.count());
    latching(() -> place.publish(next));
    release(offset, bytes);
    offset = newOffset;
    bytes = newBytes;
    adopt(changes, entries);
  }

  private void adopt(List<Change> changes, List<ByteBuffer> entries) {
    long at = offset;
    for (int index = 0; index < changes.size(); index++) {
      Change change = changes.get(index);
      change.bitmap().entry = change.entry();
      change.bitmap().entryAt = at;
      at += entries.get(index).capacity();
    }
    bitmaps = changes.stream().map(Change::bitmap).toList();
  }

  /** Extra data and names stay byte by byte as they are. */
  private ByteBuffer encode(Change change) throws IOException {
    long at = change.bitmap().entryAt;
    if (at == 0) {
      return change.entry().encode();
    }
    ImageFile image = ImageFile.of(file);
    long length = BitmapEntry.bytes(image.read(at, BitmapEntry.FIXED_BYTES));
    ByteBuffer entry = image.read(at, (int) length);
    change.entry().putChangeable(entry);
    return entry;
  }

  private interface HeaderWrite {
    void run() throws IOException;
  }

  /** When it fails nobody knows which directory the file has, and nothing more is written to it. */
  private void latching(HeaderWrite write) throws IOException {
    try {
      write.run();
    } catch (IOException e) {
      file.giveUp(String.valueOf(e.getMessage()));
      throw e;
    }
  }

  private void release(long from, long count) {
    allocator.guard().forget(geometry.clusterOf(from), geometry.clustersFor(count));
    for (long i = 0; i < geometry.clustersFor(count); i++) {
      allocator.release(geometry.clusterOf(from) + i);
    }
  }
}
