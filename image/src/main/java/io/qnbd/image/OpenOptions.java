package io.qnbd.image;

import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * How an image is opened.
 *
 * @param format the format, or null to take qcow2 if the file says so. A file without qcow2's magic
 *     is never opened for writing as raw unless the format is given: its guest could write a qcow2
 *     header into it and choose what the next open reads.
 * @param readOnly whether writes are refused
 * @param cacheMode see {@link CacheMode}
 * @param backingPolicy which backing and data files may be opened by the names that images give
 * @param l2CacheBytes the most memory that cached L2 slices take, in bytes; at least 64 KiB
 * @param refBatch decrements kept until a commit applies them, in clusters; a batch so long asks
 *     for a commit, one twice as long waits for it. 0 waits for a commit after each change that
 *     drops a reference
 * @param refReserve the most clusters reserved ahead; 0 reserves only what a request needs
 * @param forceShare read-only and without a lock, for looking at an image that another process has
 *     open; what is read may be inconsistent
 * @param snapshot the name or id of an internal snapshot to read instead of the disk; null for the
 *     disk. Read-only
 * @param dataFile the external data file, wherever it is; null for the one that the image names, if
 *     {@code backingPolicy} allows it
 * @param passphrase opens the image, and the backing files below it, where they are encrypted
 * @param overlapCheck what is looked at before a write could go where metadata is
 */
public record OpenOptions(
    @Nullable ImageFormat format,
    boolean readOnly,
    CacheMode cacheMode,
    BackingPolicy backingPolicy,
    long l2CacheBytes,
    int refBatch,
    int refReserve,
    boolean forceShare,
    @Nullable String snapshot,
    @Nullable Path dataFile,
    @Nullable Passphrase passphrase,
    OverlapCheck overlapCheck) {

  /** 32 MiB of L2 slices map 256 GiB of a guest with 64 KiB clusters; QEMU's default too. */
  public static final long L2_CACHE_BYTES_DEFAULT = 32L << 20;

  /** Bounds the leak after a crash: 1022 clusters of 64 KiB, just under 64 MiB. */
  public static final int REF_BATCH_DEFAULT = 1022;

  /** 1024 clusters of 64 KiB: one refcount write for each 64 MiB that a guest allocates. */
  public static final int REF_RESERVE_DEFAULT = 1024;

  public static final OpenOptions DEFAULT =
      new OpenOptions(
          null,
          false,
          CacheMode.WRITEBACK,
          BackingPolicy.SAME_DIRECTORY,
          L2_CACHE_BYTES_DEFAULT,
          REF_BATCH_DEFAULT,
          REF_RESERVE_DEFAULT,
          false,
          null,
          null,
          null,
          OverlapCheck.CACHED);

  public OpenOptions withFormat(@Nullable ImageFormat value) {
    return new OpenOptions(
        value,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withReadOnly(boolean value) {
    return new OpenOptions(
        format,
        value,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withCacheMode(CacheMode value) {
    return new OpenOptions(
        format,
        readOnly,
        value,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withBackingPolicy(BackingPolicy value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        value,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withL2CacheBytes(long value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        value,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withRefBatch(int value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        value,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withRefReserve(int value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        value,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withForceShare(boolean value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        value,
        snapshot,
        dataFile,
        passphrase,
        overlapCheck);
  }

  /** The same for an internal snapshot, read-only. */
  public OpenOptions withSnapshot(@Nullable String value) {
    return new OpenOptions(
        format,
        readOnly || value != null,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        value,
        dataFile,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withDataFile(@Nullable Path value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        value,
        passphrase,
        overlapCheck);
  }

  public OpenOptions withPassphrase(@Nullable Passphrase value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        value,
        overlapCheck);
  }

  public OpenOptions withOverlapCheck(OverlapCheck value) {
    return new OpenOptions(
        format,
        readOnly,
        cacheMode,
        backingPolicy,
        l2CacheBytes,
        refBatch,
        refReserve,
        forceShare,
        snapshot,
        dataFile,
        passphrase,
        value);
  }
}
