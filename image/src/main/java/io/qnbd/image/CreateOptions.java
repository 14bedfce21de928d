package io.qnbd.image;

import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * How an image is made.
 *
 * @param format qcow2 or raw
 * @param virtualBytes the size of the virtual disk in bytes; null takes the backing file's
 * @param clusterBytes cluster size, a power of two from 512 to 2 MiB (qcow2)
 * @param version 2 or 3 (qcow2)
 * @param refcountBits a power of two from 1 to 64; version 2 has 16 only (qcow2)
 * @param lazyRefcounts whether the image permits lazy refcounts (qcow2, version 3)
 * @param backingFile the name to store, relative to the image's own directory unless absolute, or
 *     null
 * @param backingFormat the backing file's format; required with a backing file
 * @param extendedL2 whether clusters have 32 subclusters, that are allocated one by one (qcow2,
 *     version 3, clusters of 16 KiB at least)
 * @param preallocation how much of the space is taken now; metadata is for qcow2 only
 * @param compression how clusters are compressed, if any will be (qcow2, zstd in version 3 only)
 * @param dataFile a file to make for the guest's data, by the name to store, relative to the
 *     image's own directory unless absolute; null keeps the data in the image (qcow2, version 3)
 * @param dataFileRaw whether the data file is, by itself, always the disk's raw image
 * @param encryption how the guest's data is encrypted, or null (qcow2)
 */
public record CreateOptions(
    ImageFormat format,
    @Nullable Long virtualBytes,
    int clusterBytes,
    int version,
    int refcountBits,
    boolean lazyRefcounts,
    boolean extendedL2,
    @Nullable Path backingFile,
    @Nullable ImageFormat backingFormat,
    Preallocation preallocation,
    CompressionType compression,
    @Nullable Path dataFile,
    boolean dataFileRaw,
    @Nullable Encryption encryption) {

  /** What QEMU takes to try a passphrase, in milliseconds. */
  public static final int ITER_MILLIS_DEFAULT = 2000;

  /**
   * LUKS with AES-256 in XTS mode.
   *
   * @param iterMillis about how long it shall take to try a passphrase on this machine
   */
  public record Encryption(Passphrase passphrase, int iterMillis) {}

  /**
   * An image that keeps its data itself and in the clear, and whose compressed clusters are zlib's.
   */
  public CreateOptions(
      ImageFormat format,
      @Nullable Long virtualBytes,
      int clusterBytes,
      int version,
      int refcountBits,
      boolean lazyRefcounts,
      boolean extendedL2,
      @Nullable Path backingFile,
      @Nullable ImageFormat backingFormat,
      Preallocation preallocation) {
    this(
        format,
        virtualBytes,
        clusterBytes,
        version,
        refcountBits,
        lazyRefcounts,
        extendedL2,
        backingFile,
        backingFormat,
        preallocation,
        CompressionType.ZLIB,
        null,
        false,
        null);
  }

  /** A version 3 qcow2 image with 64 KiB clusters and 16-bit refcounts, like qemu-img's. */
  public static CreateOptions qcow2(long virtualBytes) {
    return new CreateOptions(
        ImageFormat.QCOW2, virtualBytes, 65536, 3, 16, false, false, null, null, Preallocation.OFF);
  }

  public static CreateOptions raw(long virtualBytes) {
    return new CreateOptions(
        ImageFormat.RAW, virtualBytes, 65536, 3, 16, false, false, null, null, Preallocation.OFF);
  }

  /** The same with another size. */
  public CreateOptions withVirtualBytes(long value) {
    return new CreateOptions(
        format,
        value,
        clusterBytes,
        version,
        refcountBits,
        lazyRefcounts,
        extendedL2,
        backingFile,
        backingFormat,
        preallocation,
        compression,
        dataFile,
        dataFileRaw,
        encryption);
  }

  /** The same with another way to compress clusters. */
  public CreateOptions withCompression(CompressionType value) {
    return new CreateOptions(
        format,
        virtualBytes,
        clusterBytes,
        version,
        refcountBits,
        lazyRefcounts,
        extendedL2,
        backingFile,
        backingFormat,
        preallocation,
        value,
        dataFile,
        dataFileRaw,
        encryption);
  }

  /** The same with the data in a file of its own. */
  public CreateOptions withDataFile(@Nullable Path value, boolean raw) {
    return new CreateOptions(
        format,
        virtualBytes,
        clusterBytes,
        version,
        refcountBits,
        lazyRefcounts,
        extendedL2,
        backingFile,
        backingFormat,
        preallocation,
        compression,
        value,
        raw,
        encryption);
  }

  /** The same, encrypted. */
  public CreateOptions withEncryption(@Nullable Encryption value) {
    return new CreateOptions(
        format,
        virtualBytes,
        clusterBytes,
        version,
        refcountBits,
        lazyRefcounts,
        extendedL2,
        backingFile,
        backingFormat,
        preallocation,
        compression,
        dataFile,
        dataFileRaw,
        value);
  }

  /** Whether L2 tables and refcounts are written for the whole disk now. */
  public boolean preallocateMetadata() {
    // Every cluster of a raw data file is the disk's from the start, whoever writes to it.
    return format == ImageFormat.QCOW2 && (preallocation != Preallocation.OFF || dataFileRaw);
  }
}
