package io.qnbd.image.disk;

import io.qnbd.image.CheckReport;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.check.Checker;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.codec.ClusterCodec;
import io.qnbd.image.codec.ZstdCodec;
import io.qnbd.image.crypt.SectorCipher;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.metadata.AutoclearBits;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.DirtyBit;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.DataClusters;
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
    return openAbove(storage, options, new Named(storage, backings), progress);
  }

  /**
   * Opens an image over {@code base}, whatever backing file its header names.
   *
   * @param base closed with the image, and if opening fails
   * @param storage the image's own file; likewise
   */
  static Qcow2Image openOver(DiskImage base, Storage storage, OpenOptions options)
      throws IOException {
    return openAbove(storage, options, new Given(base), ProgressListener.NONE);
  }

  /** Opens what else an image consists of. */
  private sealed interface Beside {
    /** What lies below; null for nothing. */
    @Nullable DiskImage openBacking(Header header) throws IOException;

    /** The data file of an image that has one. */
    Storage openData(Header header) throws IOException;
  }

  /** By the names in the header. */
  private record Named(Storage file, BackingOpener opener) implements Beside {
    @Override
    public @Nullable DiskImage openBacking(Header header) throws IOException {
      return Qcow2Opener.openBacking(file, header, opener);
    }

    @Override
    public Storage openData(Header header) throws IOException {
      return opener.openData(header.dataFileName(file.name()));
    }
  }

  /** An image that was made over another one, just now. */
  private record Given(DiskImage base) implements Beside {
    @Override
    public DiskImage openBacking(Header header) {
      return base;
    }

    @Override
    public Storage openData(Header header) {
      throw new AssertionError("it has no data file");
    }
  }

  private static Qcow2Image openAbove(
      Storage storage, OpenOptions options, Beside beside, ProgressListener progress)
      throws IOException {
    LatchedStorage file = new LatchedStorage(storage);
    @Nullable DiskImage backing = beside instanceof Given(DiskImage base) ? base : null;
    @Nullable DataFile dataFile = null;
    boolean done = false;
    try {
      Header header = ImageFile.of(file).readHeader();
      if (options.readOnly()) {
        header.requireReadable(file.name());
      } else {
        header.requireWritable(file.name());
      }
      SectorCipher.Maker ciphers = Encryption.open(file, header, options.passphrase());
      dataFile = openData(file, header, options, beside);
      if (!options.readOnly()) {
        if (header.dirty()) {
          Rebuild.rebuild(file, progress);
          header = ImageFile.of(file).readHeader();
        }
        if (options.overlapCheck() == OverlapCheck.ALL) {
          requireFaultless(file);
        }
      }
      backing = beside.openBacking(header);
      Layers layers = assemble(file, header, options, new Sources(backing, dataFile, ciphers));
      DirtyBitmaps bitmaps = bitmaps(file, header, options, layers);
      layers.allocator().guard().opened();
      Qcow2Image image = new Qcow2Image(layers, options, header.lazyRefcounts(), bitmaps);
      done = true;
      return image;
    } finally {
      if (!done) {
        if (backing != null) {
          backing.close();
        }
        if (dataFile != null) {
          dataFile.storage().close();
        }
        file.close();
      }
    }
  }

  private static void requireFaultless(Storage file) throws IOException {
    CheckReport report = Checker.check(file);
    if (report.corruptions() > 0) {
      throw new CorruptImageException(
          "%s: is not opened for writing, because a check of all of it found %d corruption%s: run"
                  .formatted(
                      file.name(), report.corruptions(), report.corruptions() == 1 ? "" : "s")
              + " `qnbd check` to see them");
    }
  }

  private static DirtyBitmaps bitmaps(
      LatchedStorage file, Header header, OpenOptions options, Layers layers) throws IOException {
    long kept = layers.keepsRaw() ? FeatureBits.RAW_DATA_FILE : 0;
    AutoclearBits autoclear = new AutoclearBits(file, header.autoclearFeatures(), kept);
    if (options.snapshot() != null) {
      return DirtyBitmaps.none(file, header, layers.metadata(), layers.allocator(), autoclear);
    }
    boolean compared = !options.readOnly() && layers.allocator().guard().comparesCounts();
    return DirtyBitmaps.open(
        file,
        header,
        layers.metadata(),
        layers.allocator(),
        autoclear,
        compared
            ? use -> {
              use.with(layers.map().l1());
              layers.directory().forEachTable(null, use);
            }
            : null);
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
              + " `qnbd rebase -u -F FORMAT -b BACKING IMAGE`");
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

  private static @Nullable DataFile openData(
      Storage file, Header header, OpenOptions options, Beside beside) throws IOException {
    if (!header.hasDataFile()) {
      if (options.dataFile() != null) {
        throw new IOException(
            file.name() + ": keeps its data itself, but a data file was given for it");
      }
      return null;
    }
    boolean raw = (header.autoclearFeatures() & FeatureBits.RAW_DATA_FILE) != 0;
    if (raw && header.backingFile() != null) {
      throw new CorruptImageException(
          file.name() + ": has a raw external data file and a backing file, which can't be");
    }
    LatchedStorage data = new LatchedStorage(beside.openData(header));
    boolean done = false;
    try {
      if (raw && !options.readOnly() && data.length() < header.virtualBytes()) {
        data.setLength(header.virtualBytes()); // it reads the same
      }
      done = true;
      return new DataFile(data, raw);
    } finally {
      if (!done) {
        data.close();
      }
    }
  }

  /** Where an image's data comes from, other than from plain clusters of its own. */
  private record Sources(
      @Nullable DiskImage backing,
      @Nullable DataFile dataFile,
      SectorCipher.@Nullable Maker ciphers) {

    Storage data(LatchedStorage file) {
      if (dataFile != null) {
        return dataFile.storage();
      }
      return ciphers == null ? file : new EncryptedStorage(file, ciphers);
    }

    DataClusters clusters(Allocator allocator) {
      return dataFile != null
          ? DataClusters.inDataFile()
          : DataClusters.of(allocator, ciphers == null);
    }
  }

  private static Layers assemble(
      LatchedStorage file, Header header, OpenOptions options, Sources sources) throws IOException {
    DiskImage backing = sources.backing();
    Geometry geometry = header.geometry();
    boolean zeroFlagKnown = header.version() >= 3;
    Barrier barrier = new Barrier();
    long tableBytes = geometry.offsetOf(header.refcountTableClusters());
    long[] refcountTable =
        options.readOnly() ? new long[0] : new long[(int) (tableBytes / Long.BYTES)];
    TableIo.read(file, header.refcountTableOffset(), refcountTable, "refcount table");
    SnapshotDirectory directory = directory(file, header);
    Tree tree = tree(file, header, directory, options.snapshot());
    Guard guard = guard(file, header, options, tree, refcountTable, directory);
    RefcountBlocks blocks =
        new RefcountBlocks(file, geometry, header.refcountTableOffset(), refcountTable, guard);
    Allocator allocator =
        new Allocator(
            file,
            geometry,
            blocks,
            (offset, clusters) -> writeRefcountTableFields(file, offset, clusters),
            barrier,
            options.refReserve(),
            header.lazyRefcounts(),
            guard);
    DataClusters clusters = sources.clusters(allocator);
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
            clusters,
            barrier);
    ClusterCache cache = new ClusterCache(geometry.clusterBytes(), ClusterCache.IMAGE_BYTES_MAX);
    map.onCompressedReleased(cache::forget);
    Storage data = sources.data(file);
    boolean byGuest = header.cryptMethod() == Header.CRYPT_AES;
    return new Layers(
        file,
        data,
        sources.dataFile(),
        byGuest && data instanceof EncryptedStorage encrypted ? encrypted : null,
        geometry,
        header.cryptMethod(),
        tree.virtualBytes(),
        zeroFlagKnown,
        new ReentrantLock(),
        map,
        allocator,
        clusters,
        barrier,
        new DirtyBit(file, header.incompatibleFeatures(), zeroFlagKnown),
        directory,
        backing,
        codec(file, header),
        cache,
        new Scratch(geometry.clusterBytes()));
  }

  private static SnapshotDirectory directory(LatchedStorage file, Header header)
      throws IOException {
    return new SnapshotDirectory(
        file,
        header.geometry(),
        header.snapshotsOffset(),
        ImageFile.of(file).readSnapshots(header).entries());
  }

  private static Guard guard(
      LatchedStorage file,
      Header header,
      OpenOptions options,
      Tree tree,
      long[] refcountTable,
      SnapshotDirectory directory)
      throws IOException {
    if (options.readOnly()) {
      return Guard.ofReader(file.name());
    }
    return MetadataSurvey.guard(
        file, header, options.overlapCheck(), tree.l1(), refcountTable, directory.entries());
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
      entry.requireTable(
          file.name(), directory.entries().indexOf(entry), header.clusterBytes(), file.length());
      l1Offset = entry.l1Offset();
      l1Entries = entry.l1Entries();
      virtualBytes = entry.virtualBytes().orElse(virtualBytes);
    }
    long[] l1 = new long[(int) l1Entries];
    TableIo.read(file, l1Offset, l1, "L1 table");
    long needed = HeaderRules.l1EntriesFor(virtualBytes, header.clusterBits(), header.extendedL2());
    if (virtualBytes < 0 || needed > l1.length) {
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
