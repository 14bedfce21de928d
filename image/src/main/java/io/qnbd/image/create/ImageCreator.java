package io.qnbd.image.create;

import io.qnbd.image.CompressionType;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.crypt.LuksMaker;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderBuilder;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.format.Subclusters;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Writes a new image into an empty file.
 *
 * <p>A qcow2 header is written last, after everything that it points to was synced: a crash before
 * leaves a file that is no image.
 */
public final class ImageCreator {
  /** QEMU truncates a disk to whole sectors; we make none that it could not show in full. */
  private static final int SECTOR_BYTES = 512;

  /** With smaller clusters the first one's room is left for a backing file's name. */
  private static final int FEATURE_NAMES_CLUSTER_BYTES_MIN = 4096;

  /** Opening an image of somebody else's is given up after not much longer. */
  private static final int ITER_MILLIS_MAX = 10_000;

  private static final int CLUSTER_BYTES_MIN = 1 << HeaderRules.CLUSTER_BITS_MIN;
  private static final int CLUSTER_BYTES_MAX = 1 << HeaderRules.CLUSTER_BITS_MAX;
  private static final int EXTENDED_L2_CLUSTER_BYTES_MIN =
      1 << HeaderRules.EXTENDED_L2_CLUSTER_BITS_MIN;
  private static final int REFCOUNT_BITS_MAX = 1 << HeaderRules.REFCOUNT_ORDER_MAX;

  private ImageCreator() {}

  /**
   * Makes the image and syncs it. The size must be given, and the file must be empty; after an
   * error its contents are undefined.
   */
  public static void create(Storage file, CreateOptions options) throws IOException {
    create(file, options, ProgressListener.NONE);
  }

  /** The same, told how far the writing of a full preallocation is. */
  public static void create(Storage file, CreateOptions options, ProgressListener progress)
      throws IOException {
    require(file.length() == 0, file, "the file is not empty");
    Long virtualBytes = options.virtualBytes();
    if (virtualBytes == null) {
      throw failure(file, "no size was given");
    }
    require(virtualBytes >= 0, file, "a size can't be negative");
    switch (options.format()) {
      case RAW -> createRaw(file, options, virtualBytes, progress);
      case QCOW2 -> createQcow2(file, options, virtualBytes, progress);
    }
  }

  private static void createRaw(
      Storage file, CreateOptions options, long virtualBytes, ProgressListener progress)
      throws IOException {
    require(options.backingFile() == null, file, "a raw image has no backing file");
    require(
        options.preallocation() != Preallocation.METADATA,
        file,
        "a raw image has no metadata to preallocate");
    require(options.dataFile() == null, file, "a raw image has no data file beside it");
    require(options.encryption() == null, file, "a raw image is not encrypted");
    file.setLength(virtualBytes);
    Space.take(file, 0, virtualBytes, options.preallocation(), progress);
    file.sync();
  }

  private static void createQcow2(
      Storage file, CreateOptions options, long virtualBytes, ProgressListener progress)
      throws IOException {
    requireQcow2(file, options);
    int clusterBits = Integer.numberOfTrailingZeros(options.clusterBytes());
    int refcountOrder = Integer.numberOfTrailingZeros(options.refcountBits());
    Geometry geometry = new Geometry(clusterBits, refcountOrder, options.extendedL2());
    long bytesMax = geometry.l2CoverageBytes() * HeaderRules.L1_ENTRIES_MAX;
    require(
        virtualBytes <= bytesMax,
        file,
        String.format(
            "a disk of %d bytes is too large for clusters of %d bytes, which allow %d",
            virtualBytes, options.clusterBytes(), bytesMax));
    long roundedBytes = Math.ceilDiv(virtualBytes, SECTOR_BYTES) * SECTOR_BYTES;
    CreateOptions.Encryption encryption = options.encryption();
    Layout.Content content =
        new Layout.Content(
            encryption == null ? 0 : LuksMaker.AREA_BYTES, options.dataFile() == null);
    Layout layout = Layout.of(geometry, roundedBytes, options.preallocateMetadata(), content);
    Header header = header(file, options, layout, roundedBytes);
    requireTableRoom(file, options, layout);

    file.setLength(geometry.offsetOf(layout.clusters()));
    writeRefcounts(file, layout);
    if (layout.preallocated()) {
      writeMapping(file, layout);
      long data = geometry.offsetOf(layout.firstDataCluster());
      Space.take(
          file,
          data,
          geometry.offsetOf(layout.clusters()) - data,
          options.preallocation(),
          progress);
    }
    if (encryption != null) {
      byte[] passphrase = encryption.passphrase().bytes();
      try {
        file.write(layout.encryptionOffset(), LuksMaker.make(passphrase, encryption.iterMillis()));
      } finally {
        Arrays.fill(passphrase, (byte) 0);
      }
    }
    file.sync();
    file.write(0, header.encode());
    file.sync();
  }

  /** Makes the data file of an image with these options and a size, in an empty file. */
  public static void createDataFile(Storage data, CreateOptions options, ProgressListener progress)
      throws IOException {
    Long virtualBytes = options.virtualBytes();
    if (virtualBytes == null) {
      throw failure(data, "no size was given");
    }
    long roundedBytes = Math.ceilDiv(virtualBytes, SECTOR_BYTES) * SECTOR_BYTES;
    data.setLength(roundedBytes);
    Space.take(data, 0, roundedBytes, options.preallocation(), progress);
    data.sync();
  }

  private static void requireQcow2(Storage file, CreateOptions options) throws IOException {
    require(
        powerOfTwo(options.clusterBytes(), CLUSTER_BYTES_MIN, CLUSTER_BYTES_MAX),
        file,
        "the cluster size is %d, expected a power of two from %d to %d"
            .formatted(options.clusterBytes(), CLUSTER_BYTES_MIN, CLUSTER_BYTES_MAX));
    require(
        options.version() == 2 || options.version() == 3,
        file,
        "the version is " + options.version() + ", expected 2 or 3");
    require(
        powerOfTwo(options.refcountBits(), 1, REFCOUNT_BITS_MAX),
        file,
        "refcounts of %d bits were asked for, expected a power of two from 1 to %d"
            .formatted(options.refcountBits(), REFCOUNT_BITS_MAX));
    require(
        options.version() != 2 || options.refcountBits() == 16,
        file,
        "version 2 images have refcounts of 16 bits");
    require(
        options.version() != 2 || !options.lazyRefcounts(),
        file,
        "version 2 images have no lazy refcounts");
    require(
        options.version() != 2 || !options.extendedL2(),
        file,
        "version 2 images have no extended L2 entries");
    require(
        !options.extendedL2() || options.clusterBytes() >= EXTENDED_L2_CLUSTER_BYTES_MIN,
        file,
        "the cluster size is %d, expected at least %d with extended L2 entries"
            .formatted(options.clusterBytes(), EXTENDED_L2_CLUSTER_BYTES_MIN));
    require(
        options.version() != 2 || options.compression() == CompressionType.ZLIB,
        file,
        "version 2 images have no clusters compressed with " + options.compression());
    requireDataPlace(file, options);
    Path backing = options.backingFile();
    if (backing == null) {
      require(options.backingFormat() == null, file, "a backing format without a backing file");
      return;
    }
    require(options.backingFormat() != null, file, "the backing file's format was not given");
    require(!options.preallocateMetadata(), file, "preallocation would hide the backing file");
    requireName(file, "the backing file's name", backing.toString());
  }

  private static void requireDataPlace(Storage file, CreateOptions options) throws IOException {
    CreateOptions.Encryption encryption = options.encryption();
    if (encryption != null) {
      require(options.dataFile() == null, file, "an encrypted image keeps its data itself");
      require(
          options.version() != 2 || !options.preallocateMetadata(),
          file,
          "version 2 can't say of preallocated clusters that they are zeroes, which encrypted"
              + " ones must be told");
      require(
          encryption.iterMillis() > 0 && encryption.iterMillis() <= ITER_MILLIS_MAX,
          file,
          "a passphrase that takes %d ms to try was asked for, expected 1 to %d"
              .formatted(encryption.iterMillis(), ITER_MILLIS_MAX));
    }
    Path dataFile = options.dataFile();
    if (dataFile == null) {
      require(!options.dataFileRaw(), file, "a raw data file was asked for, but no data file");
      return;
    }
    require(options.version() != 2, file, "version 2 images have no data file");
    require(!options.extendedL2(), file, "extended L2 entries and a data file are not supported");
    require(
        !options.dataFileRaw() || options.backingFile() == null,
        file,
        "a raw data file holds all of the disk, so there can't be a backing file");
    requireName(file, "the data file's name", dataFile.toString());
  }

  private static void requireName(Storage file, String what, String name) throws IOException {
    require(!name.isEmpty(), file, what + " is empty");
    require(
        name.indexOf(':') < 0 || (name.indexOf('/') >= 0 && name.indexOf('/') < name.indexOf(':')),
        file,
        what + " would be read as a protocol: write ./ before it");
    int nameBytes = name.getBytes(StandardCharsets.UTF_8).length;
    require(
        nameBytes <= HeaderRules.BACKING_NAME_BYTES_MAX,
        file,
        "%s has %d bytes, expected at most %d"
            .formatted(what, nameBytes, HeaderRules.BACKING_NAME_BYTES_MAX));
  }

  private static boolean powerOfTwo(int value, int min, int max) {
    return value >= min && value <= max && Integer.bitCount(value) == 1;
  }

  private static Header header(
      Storage file, CreateOptions options, Layout layout, long virtualBytes) throws IOException {
    List<HeaderExtension> extensions = new ArrayList<>();
    if (options.backingFormat() != null) {
      extensions.add(
          HeaderExtension.ofText(
              HeaderExtension.BACKING_FORMAT, options.backingFormat().toString()));
    }
    if (options.version() != 2 && options.clusterBytes() >= FEATURE_NAMES_CLUSTER_BYTES_MIN) {
      extensions.add(FeatureBits.nameTable());
    }
    Path dataFile = options.dataFile();
    if (dataFile != null) {
      extensions.add(HeaderExtension.ofText(HeaderExtension.DATA_FILE, dataFile.toString()));
    }
    if (options.encryption() != null) {
      extensions.add(
          new HeaderExtension(
              HeaderExtension.ENCRYPTION_HEADER,
              ByteBuffer.allocate(2 * Long.BYTES)
                  .putLong(layout.encryptionOffset())
                  .putLong(layout.content().encryptionBytes())
                  .flip()));
    }
    Geometry geometry = layout.geometry();
    boolean zstd = options.compression() == CompressionType.ZSTD;
    Header header =
        new HeaderBuilder(options.version(), geometry.clusterBits())
            .virtualBytes(virtualBytes)
            .refcountOrder(geometry.refcountOrder())
            .refcountTable(layout.refcountTableOffset(), layout.refcountTableClusters())
            .l1(layout.l1Entries() == 0 ? 0 : layout.l1Offset(), layout.l1Entries())
            .compressionType(zstd ? Header.COMPRESSION_ZSTD : Header.COMPRESSION_DEFLATE)
            .compatibleFeatures(options.lazyRefcounts() ? FeatureBits.LAZY_REFCOUNTS : 0)
            .incompatibleFeatures(
                (options.extendedL2() ? FeatureBits.EXTENDED_L2 : 0)
                    | (zstd ? FeatureBits.COMPRESSION_TYPE : 0)
                    | (dataFile == null ? 0 : FeatureBits.DATA_FILE))
            .autoclearFeatures(options.dataFileRaw() ? FeatureBits.RAW_DATA_FILE : 0)
            .cryptMethod(options.encryption() == null ? Header.CRYPT_NONE : Header.CRYPT_LUKS)
            .extensions(extensions)
            .backingFile(text(options.backingFile()))
            .build();
    require(
        header.encodedBytes() <= options.clusterBytes(),
        file,
        "the header with the names of other files does not fit into a first cluster of %d bytes"
            .formatted(options.clusterBytes()));
    return header;
  }

  private static @Nullable String text(@Nullable Path path) {
    return path == null ? null : path.toString();
  }

  private static void requireTableRoom(Storage file, CreateOptions options, Layout layout)
      throws IOException {
    long tableBytes = layout.geometry().offsetOf(layout.refcountTableClusters());
    require(
        tableBytes <= HeaderRules.REFCOUNT_TABLE_BYTES_MAX,
        file,
        "refcounts of %d bits in clusters of %d bytes can't count so many clusters"
            .formatted(options.refcountBits(), options.clusterBytes()));
  }

  /** Counts every cluster of the file as used once. */
  private static void writeRefcounts(Storage file, Layout layout) throws IOException {
    Geometry geometry = layout.geometry();
    TableWriter table = new TableWriter(file, layout.refcountTableOffset());
    for (long index = 0; index < layout.refcountBlocks(); index++) {
      table.put(layout.refcountBlockOffset(index));
    }
    table.flush();
    byte[] block = new byte[geometry.clusterBytes()];
    long filled = 0;
    for (long index = 0; index < layout.refcountBlocks(); index++) {
      long left = layout.clusters() - index * geometry.refcountBlockEntries();
      long used = Math.clamp(left, 0, geometry.refcountBlockEntries());
      if (used < filled) {
        block = new byte[geometry.clusterBytes()];
        filled = 0;
      }
      for (; filled < used; filled++) {
        RefcountEntries.set(block, geometry.refcountOrder(), (int) filled, 1);
      }
      file.write(layout.refcountBlockOffset(index), ByteBuffer.wrap(block));
    }
  }

  /** Gives every guest cluster a host cluster, which is a hole. */
  private static void writeMapping(Storage file, Layout layout) throws IOException {
    TableWriter l1 = new TableWriter(file, layout.l1Offset());
    for (int index = 0; index < layout.l1Entries(); index++) {
      l1.put(L1Entry.of(layout.l2Offset(index)));
    }
    l1.flush();
    // L2 tables and data clusters each stand in a row, so all L2 tables are one run of entries.
    TableWriter l2 = new TableWriter(file, layout.l2Offset(0));
    for (long guestCluster = 0; guestCluster < layout.guestClusters(); guestCluster++) {
      l2.put(preallocated(layout, guestCluster));
      if (layout.geometry().extendedL2()) {
        l2.put(
            layout.content().encryptionBytes() == 0
                ? Subclusters.of(Subclusters.ALL, 0)
                : Subclusters.of(0, Subclusters.ALL));
      }
    }
    l2.flush();
  }

  private static long preallocated(Layout layout, long guestCluster) {
    Geometry geometry = layout.geometry();
    if (!layout.content().dataHere()) {
      return L2Entry.data(geometry.offsetOf(guestCluster));
    }
    long at = geometry.offsetOf(layout.firstDataCluster() + guestCluster);
    // Zeroes that nobody encrypted would be read as something else.
    boolean readsAsData = layout.content().encryptionBytes() == 0 || geometry.extendedL2();
    return readsAsData ? L2Entry.data(at) : L2Entry.allocatedZero(at);
  }

  private static void require(boolean holds, Storage file, String otherwise) throws IOException {
    if (!holds) {
      throw failure(file, otherwise);
    }
  }

  private static IOException failure(Storage file, String reason) {
    return new IOException("creating " + file.name() + ": " + reason);
  }
}
