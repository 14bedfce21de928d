package io.qnbd.image.disk;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.codec.ClusterCodec;
import io.qnbd.image.codec.ZstdCodec;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.DirtyBit;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.RefcountBlocks;
import io.qnbd.image.snapshot.SnapshotDirectory;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/** Puts an open image together from its header. */
final class Qcow2Opener {
  private Qcow2Opener() {}

  static Qcow2Image open(
      Storage storage, OpenOptions options, BackingOpener backings, ProgressListener progress)
      throws IOException {
    return openAbove(storage, options, header -> openBacking(storage, header, backings), progress);
  }

  /**
   * Opens an image over {@code base}, whatever backing file its header names.
   *
   * @param base closed with the image, and if opening fails
   * @param storage the image's own file; likewise
   */
  static Qcow2Image openOver(DiskImage base, Storage storage, OpenOptions options)
      throws IOException {
    return openAbove(storage, options, _ -> base, ProgressListener.NONE);
  }

  /** Opens what lies below an image; null for nothing. */
  private interface Below {
    @Nullable DiskImage open(Header header) throws IOException;
  }

  private static Qcow2Image openAbove(
      Storage storage, OpenOptions options, Below below, ProgressListener progress)
      throws IOException {
    LatchedStorage file = new LatchedStorage(storage);
    @Nullable DiskImage backing = null;
    boolean done = false;
    try {
      Header header = ImageFile.of(file).readHeader();
      if (options.readOnly()) {
        header.requireReadable(file.name());
      } else {
        header.requireWritable(file.name());
        if (header.dirty()) {
          Rebuild.rebuild(file, progress);
          header = ImageFile.of(file).readHeader();
        }
      }
      backing = below.open(header);
      Layers layers = assemble(file, header, options, backing);
      boolean bitmapsHold = options.readOnly() && options.snapshot() == null;
      DirtyBitmaps bitmaps =
          bitmapsHold ? DirtyBitmaps.read(file, header) : DirtyBitmaps.none(file, header);
      Qcow2Image image =
          new Qcow2Image(
              layers, options, header.autoclearFeatures() != 0, header.lazyRefcounts(), bitmaps);
      done = true;
      return image;
    } finally {
      if (!done) {
        if (backing != null) {
          backing.close();
        }
        file.close();
      }
    }
  }

  private static @Nullable DiskImage openBacking(
      Storage file, Header header, BackingOpener backings) throws IOException {
    String name = header.backingFile();
    if (name == null) {
      return null;
    }
    return backings.open(name, backingFormat(file, name, header.backingFormat()));
  }

  /** What a header says of its backing file's format, which is never guessed. */
  static ImageFormat backingFormat(Storage file, String name, @Nullable String format)
      throws UnsupportedImageException {
    if (format == null) {
      throw new UnsupportedImageException(
          file.name()
              + ": names the backing file "
              + name
              + " but not its format, which is never guessed: add it with"
              + " `qemu-img rebase -u -F FORMAT -b BACKING IMAGE`");
    }
    return switch (format) {
      case "qcow2" -> ImageFormat.QCOW2;
      case "raw" -> ImageFormat.RAW;
      default ->
          throw new UnsupportedImageException(
              file.name()
                  + ": its backing file "
                  + name
                  + " has the format "
                  + format
                  + ", expected qcow2 or raw");
    };
  }

  private static Layers assemble(
      LatchedStorage file, Header header, OpenOptions options, @Nullable DiskImage backing)
      throws IOException {
    Geometry geometry = header.geometry();
    boolean zeroFlagKnown = header.version() >= 3;
    Barrier barrier = new Barrier();
    long tableBytes = geometry.offsetOf(header.refcountTableClusters());
    long[] refcountTable =
        options.readOnly() ? new long[0] : new long[(int) (tableBytes / Long.BYTES)];
    TableIo.read(file, header.refcountTableOffset(), refcountTable, "refcount table");
    RefcountBlocks blocks =
        new RefcountBlocks(file, geometry, header.refcountTableOffset(), refcountTable);
    Allocator allocator =
        new Allocator(
            file,
            geometry,
            blocks,
            (offset, clusters) -> writeRefcountTableFields(file, offset, clusters),
            barrier,
            options.refReserve(),
            header.lazyRefcounts());
    SnapshotDirectory directory =
        new SnapshotDirectory(
            file,
            geometry,
            header.snapshotsOffset(),
            ImageFile.of(file).readSnapshots(header).entries());
    Tree tree = tree(file, header, directory, options.snapshot());
    ClusterMap map =
        new ClusterMap(
            file,
            geometry,
            tree.l1Offset(),
            tree.l1(),
            new ClusterMap.Options(
                zeroFlagKnown,
                backing == null ? 0 : backing.virtualBytes(),
                options.l2CacheBytes()),
            allocator,
            barrier);
    ClusterCache cache = new ClusterCache(geometry.clusterBytes(), ClusterCache.IMAGE_BYTES_MAX);
    map.onCompressedReleased(cache::forget);
    return new Layers(
        file,
        geometry,
        tree.virtualBytes(),
        zeroFlagKnown,
        new ReentrantLock(),
        map,
        allocator,
        barrier,
        new DirtyBit(file, header.incompatibleFeatures(), zeroFlagKnown),
        directory,
        backing,
        codec(file, header),
        cache,
        new Scratch(geometry.clusterBytes()));
  }

  private static ClusterCodec codec(Storage file, Header header) throws UnsupportedImageException {
    return header.compressionType() == Header.COMPRESSION_ZSTD
        ? ZstdCodec.load(file.name())
        : ClusterCodec.deflate();
  }

  /** The L1 table that is served, and the size of its disk. */
  @SuppressWarnings("ArrayRecordComponent") // handed over once, not compared
  private record Tree(long l1Offset, long[] l1, long virtualBytes) {}

  private static Tree tree(
      Storage file, Header header, SnapshotDirectory directory, @Nullable String snapshot)
      throws IOException {
    long l1Offset = header.l1Offset();
    long l1Entries = header.l1Entries();
    long virtualBytes = header.virtualBytes();
    if (snapshot != null) {
      SnapshotEntry entry = directory.find(snapshot);
      if (entry == null) {
        throw new IOException(file.name() + ": has no snapshot named " + snapshot);
      }
      entry.requireTable(file.name(), directory.entries().indexOf(entry), header, file.length());
      l1Offset = entry.l1Offset();
      l1Entries = entry.l1Entries();
      virtualBytes = entry.virtualBytes().orElse(virtualBytes);
    }
    long[] l1 = new long[(int) l1Entries];
    TableIo.read(file, l1Offset, l1, "L1 table");
    long needed = HeaderRules.l1EntriesFor(virtualBytes, header.clusterBits(), header.extendedL2());
    if (needed > l1.length) {
      throw new CorruptImageException(
          file.name() + ": its L1 table is too short for a disk of " + virtualBytes + " bytes");
    }
    return new Tree(l1Offset, l1, virtualBytes);
  }

  private static void writeRefcountTableFields(Storage file, long offset, int clusters)
      throws IOException {
    ByteBuffer fields =
        ByteBuffer.allocate(Long.BYTES + Integer.BYTES).putLong(offset).putInt(clusters).flip();
    file.write(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT, fields);
  }
}
