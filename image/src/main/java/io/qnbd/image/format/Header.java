package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The first cluster of a qcow2 image: the header, its extensions and the backing file's name (qcow2
 * specification, "Header"). {@link HeaderLayout} shows the bytes.
 *
 * <p>A header that was parsed keeps every limit of {@link HeaderRules}, which also holds for one
 * that is encoded. Whether the image can be served is another question: see {@link
 * #requireReadable} and {@link #requireWritable}. Version 2 images have the values that version 3
 * gives to absent fields.
 *
 * @param version 2 or 3
 * @param cryptMethod 0 none, 1 AES, 2 LUKS; others are unknown
 * @param compressionType 0 deflate, 1 zstd; others are unknown
 * @param backingFile the name as the image has it, up to its first zero byte; never empty
 * @param extensions in the order of the file, unknown ones included
 * @param tail the header from {@link HeaderLayout#TAIL_AT} to {@code headerBytes}; read-only
 */
public record Header(
    int version,
    int clusterBits,
    long virtualBytes,
    int cryptMethod,
    long l1Offset,
    int l1Entries,
    long refcountTableOffset,
    int refcountTableClusters,
    int snapshotCount,
    long snapshotsOffset,
    long incompatibleFeatures,
    long compatibleFeatures,
    long autoclearFeatures,
    int refcountOrder,
    int headerBytes,
    int compressionType,
    @Nullable String backingFile,
    List<HeaderExtension> extensions,
    ByteBuffer tail) {

  public static final int CRYPT_NONE = 0;
  public static final int CRYPT_AES = 1;
  public static final int CRYPT_LUKS = 2;

  public static final int COMPRESSION_DEFLATE = 0;
  public static final int COMPRESSION_ZSTD = 1;

  public Header {
    extensions = List.copyOf(extensions);
    byte[] copy = new byte[tail.remaining()];
    tail.get(tail.position(), copy);
    tail = ByteBuffer.wrap(copy).asReadOnlyBuffer();
  }

  /**
   * The cluster size that the first {@link HeaderLayout#V2_BYTES} bytes of a file name, so that the
   * caller knows how much to read for {@link #parse}.
   */
  public static int clusterBytes(String fileName, ByteBuffer start)
      throws CorruptImageException, UnsupportedImageException {
    return 1 << HeaderParser.clusterBits(fileName, start);
  }

  /** Whether the bytes begin with qcow2's magic. */
  public static boolean hasMagic(ByteBuffer start) {
    return start.remaining() >= Integer.BYTES
        && HeaderParser.bigEndian(start).getInt(HeaderLayout.MAGIC_AT) == HeaderLayout.MAGIC;
  }

  /**
   * Reads the header from the first cluster; the buffer's position stays.
   *
   * @param fileBytes the length of the file, which everything that the header points to is inside
   */
  public static Header parse(String fileName, ByteBuffer firstCluster, long fileBytes)
      throws CorruptImageException, UnsupportedImageException {
    Header header = HeaderParser.parse(fileName, firstCluster);
    HeaderRules.check(header, fileName, fileBytes);
    return header;
  }

  /** The first cluster with this header, its extensions and the backing file's name. */
  public ByteBuffer encode() {
    return HeaderEncoder.encode(this);
  }

  /** Bytes of the first cluster that {@link #encode} needs; more than a cluster won't encode. */
  public int encodedBytes() {
    return HeaderEncoder.bytes(this);
  }

  /** A copy to change. */
  public HeaderBuilder toBuilder() {
    return new HeaderBuilder(this);
  }

  @Override
  public ByteBuffer tail() {
    return tail.duplicate();
  }

  public Geometry geometry() {
    return new Geometry(clusterBits, refcountOrder, extendedL2());
  }

  public int clusterBytes() {
    return 1 << clusterBits;
  }

  public int refcountBits() {
    return 1 << refcountOrder;
  }

  public boolean dirty() {
    return (incompatibleFeatures & FeatureBits.DIRTY) != 0;
  }

  public boolean corrupt() {
    return (incompatibleFeatures & FeatureBits.CORRUPT) != 0;
  }

  public boolean hasDataFile() {
    return (incompatibleFeatures & FeatureBits.DATA_FILE) != 0;
  }

  public boolean extendedL2() {
    return (incompatibleFeatures & FeatureBits.EXTENDED_L2) != 0;
  }

  public boolean lazyRefcounts() {
    return (compatibleFeatures & FeatureBits.LAZY_REFCOUNTS) != 0;
  }

  /** The backing file's format as the image names it, or null when it doesn't. */
  public @Nullable String backingFormat() {
    return text(HeaderExtension.BACKING_FORMAT);
  }

  /** The external data file's name as the image has it, made printable, or null. */
  public @Nullable String dataFile() {
    return text(HeaderExtension.DATA_FILE);
  }

  /**
   * The external data file's name, exactly; null when the image has none.
   *
   * @throws UnsupportedImageException when it is not UTF-8
   */
  public @Nullable String dataFileName(String fileName) throws UnsupportedImageException {
    HeaderExtension extension = extension(HeaderExtension.DATA_FILE);
    if (extension == null) {
      return null;
    }
    String name = Names.exact(extension.data());
    if (name == null) {
      throw new UnsupportedImageException(fileName + ": its data file's name is not UTF-8");
    }
    return name.isEmpty() ? null : name;
  }

  private @Nullable String text(int type) {
    HeaderExtension extension = extension(type);
    return extension == null ? null : extension.text();
  }

  /** The first extension of that type, or null. */
  public @Nullable HeaderExtension extension(int type) {
    for (HeaderExtension extension : extensions) {
      if (extension.type() == type) {
        return extension;
      }
    }
    return null;
  }

  /** The names of the features that are set. */
  public List<String> featureNames(FeatureSet set) {
    return featureNames(set, ~0L);
  }

  private List<String> featureNames(FeatureSet set, long mask) {
    long bits =
        switch (set) {
          case INCOMPATIBLE -> incompatibleFeatures;
          case COMPATIBLE -> compatibleFeatures;
          case AUTOCLEAR -> autoclearFeatures;
        };
    return FeatureBits.names(set, bits & mask, extension(HeaderExtension.FEATURE_NAMES));
  }

  /** {@code none}, {@code aes}, {@code luks}, or the number of a method that we don't know. */
  public String encryptionName() {
    return switch (cryptMethod) {
      case CRYPT_NONE -> "none";
      case CRYPT_AES -> "aes";
      case CRYPT_LUKS -> "luks";
      default -> "method " + Integer.toUnsignedString(cryptMethod);
    };
  }

  /** {@code zlib}, {@code zstd}, or the number of a type that we don't know. */
  public String compressionName() {
    return switch (compressionType) {
      case COMPRESSION_DEFLATE -> "zlib";
      case COMPRESSION_ZSTD -> "zstd";
      default -> "type " + compressionType;
    };
  }

  /** Throws when the image has incompatible features that we don't know. */
  public void requireKnownFeatures(String fileName) throws UnsupportedImageException {
    List<String> unknown = featureNames(FeatureSet.INCOMPATIBLE, ~FeatureBits.INCOMPATIBLE_KNOWN);
    if (!unknown.isEmpty()) {
      throw new UnsupportedImageException(
          fileName
              + ": needs incompatible features that are unknown here: "
              + String.join(", ", unknown));
    }
  }

  /** Throws when the image has something that we can't read rightly. */
  public void requireReadable(String fileName) throws UnsupportedImageException {
    requireKnownFeatures(fileName);
    if (cryptMethod < CRYPT_NONE || cryptMethod > CRYPT_LUKS) {
      throw new UnsupportedImageException(
          fileName + ": is encrypted (" + encryptionName() + "), which is unknown here");
    }
    if (extendedL2() && hasDataFile()) {
      throw new UnsupportedImageException(
          fileName + ": has subclusters and an external data file, which is not supported");
    }
    if (cryptMethod != CRYPT_NONE && hasDataFile()) {
      throw new UnsupportedImageException(
          fileName + ": is encrypted and has an external data file, which is not supported");
    }
    if (compressionType != COMPRESSION_DEFLATE && compressionType != COMPRESSION_ZSTD) {
      throw new UnsupportedImageException(
          fileName
              + ": its clusters may be compressed with "
              + compressionName()
              + ", which is not supported; 'qemu-img convert -O qcow2' makes a copy without");
    }
  }

  /**
   * Throws when {@link #requireReadable} does, or when writing could make things worse. A dirty
   * image passes: its refcounts must be rebuilt before the first write.
   */
  public void requireWritable(String fileName) throws UnsupportedImageException {
    requireReadable(fileName);
    if (cryptMethod == CRYPT_AES) {
      throw new UnsupportedImageException(
          fileName
              + ": is encrypted by the older method (aes), which protects little and is read"
              + " only: open it with --read-only, and copy it to an image with luks");
    }
    if (corrupt()) {
      throw new UnsupportedImageException(
          fileName
              + ": is marked corrupt: repair it with `qnbd check --repair all`, or open it"
              + " read-only");
    }
  }
}
