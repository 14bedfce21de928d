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
 * @param preallocateMetadata whether L2 tables and refcounts are written for the whole disk now
 * @param compression how clusters are compressed, if any will be (qcow2, zstd in version 3 only)
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
    boolean preallocateMetadata,
    CompressionType compression) {

  /** The same for an image whose compressed clusters are zlib's. */
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
      boolean preallocateMetadata) {
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
        preallocateMetadata,
        CompressionType.ZLIB);
  }

  /** A version 3 qcow2 image with 64 KiB clusters and 16-bit refcounts, like qemu-img's. */
  public static CreateOptions qcow2(long virtualBytes) {
    return new CreateOptions(
        ImageFormat.QCOW2, virtualBytes, 65536, 3, 16, false, false, null, null, false);
  }

  public static CreateOptions raw(long virtualBytes) {
    return new CreateOptions(
        ImageFormat.RAW, virtualBytes, 65536, 3, 16, false, false, null, null, false);
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
        preallocateMetadata,
        compression);
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
        preallocateMetadata,
        value);
  }
}
