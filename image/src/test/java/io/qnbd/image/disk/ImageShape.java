package io.qnbd.image.disk;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * One kind of image and of way to open it: a row of the matrix that the engine's tests go through.
 *
 * @param preparation what a new image holds before the engine first opens it
 * @param snapshots how many internal snapshots are taken in the course of a test
 */
record ImageShape(
    int version,
    int clusterBytes,
    int refcountBits,
    int diskBytes,
    Preparation preparation,
    Backing backing,
    int snapshots,
    int refBatch,
    int refReserve,
    long l2CacheBytes,
    boolean lazyRefcounts,
    boolean extendedL2,
    Place place) {

  private static final long COMPATIBLE_FEATURES_AT = 80;
  private static final long LAZY_REFCOUNTS = 1;

  enum Preparation {
    EMPTY,
    PREALLOCATED,
    COMPRESSED,
    /** Empty, and to be filled with zstd's compressed clusters. */
    ZSTD,
    /** As much preallocated as leaves the refcount table room for a few clusters more. */
    NEARLY_FULL
  }

  enum Backing {
    NONE,
    RAW_SHORTER,
    RAW_LONGER,
    QCOW2
  }

  /** Where a guest's data is. */
  enum Place {
    HERE,
    DATA_FILE,
    RAW_DATA_FILE,
    LUKS
  }

  static ImageShape of(int version, int clusterBytes, int refcountBits, int diskBytes) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        Preparation.EMPTY,
        Backing.NONE,
        0,
        OpenOptions.REF_BATCH_DEFAULT,
        OpenOptions.REF_RESERVE_DEFAULT,
        OpenOptions.L2_CACHE_BYTES_DEFAULT,
        false,
        false,
        Place.HERE);
  }

  /** The same with the guest's data somewhere else or encrypted; version 3 only. */
  ImageShape with(Place value) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        backing,
        snapshots,
        refBatch,
        refReserve,
        l2CacheBytes,
        lazyRefcounts,
        extendedL2,
        value);
  }

  ImageShape with(Preparation value) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        value,
        backing,
        snapshots,
        refBatch,
        refReserve,
        l2CacheBytes,
        lazyRefcounts,
        extendedL2,
        place);
  }

  ImageShape with(Backing value) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        value,
        snapshots,
        refBatch,
        refReserve,
        l2CacheBytes,
        lazyRefcounts,
        extendedL2,
        place);
  }

  ImageShape withSnapshots(int value) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        backing,
        value,
        refBatch,
        refReserve,
        l2CacheBytes,
        lazyRefcounts,
        extendedL2,
        place);
  }

  ImageShape withBatches(int batch, int reserve) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        backing,
        snapshots,
        batch,
        reserve,
        l2CacheBytes,
        lazyRefcounts,
        extendedL2,
        place);
  }

  ImageShape withL2CacheBytes(long value) {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        backing,
        snapshots,
        refBatch,
        refReserve,
        value,
        lazyRefcounts,
        extendedL2,
        place);
  }

  /** The same with the compatible feature that lets counts be written late; version 3 only. */
  ImageShape withLazyRefcounts() {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        backing,
        snapshots,
        refBatch,
        refReserve,
        l2CacheBytes,
        true,
        extendedL2,
        place);
  }

  /** The same with clusters of 32 subclusters; version 3, clusters of 16 KiB at least. */
  ImageShape withExtendedL2() {
    return new ImageShape(
        version,
        clusterBytes,
        refcountBits,
        diskBytes,
        preparation,
        backing,
        snapshots,
        refBatch,
        refReserve,
        l2CacheBytes,
        lazyRefcounts,
        true,
        place);
  }

  boolean hasDataFile() {
    return place == Place.DATA_FILE || place == Place.RAW_DATA_FILE;
  }

  OpenOptions options() {
    return OpenOptions.DEFAULT
        .withFormat(ImageFormat.QCOW2)
        .withBackingPolicy(BackingPolicy.ANY)
        .withL2CacheBytes(l2CacheBytes)
        .withRefBatch(refBatch)
        .withRefReserve(refReserve)
        .withPassphrase(place == Place.LUKS ? ImageMaker.PASSPHRASE : null);
  }

  /**
   * What a guest does to such an image. One with compressed clusters gets more of them, unless
   * sharing would leave its snapshots no room to count.
   */
  Workload.Mix mix(SeededRandom random, int bytesMax) {
    Workload.Mix mix = Workload.Mix.random(random, bytesMax);
    boolean compressed =
        preparation == Preparation.ZSTD
            || (preparation == Preparation.COMPRESSED && (snapshots == 0 || refcountBits >= 16));
    return compressed ? mix.withCompressed(random.pick(List.of(10, 40, 90))) : mix;
  }

  /** Bytes of the backing file, 0 for none. */
  int backingBytes() {
    return switch (backing) {
      case NONE -> 0;
      case RAW_SHORTER -> diskBytes / 2 + 1536; // ends inside a cluster
      case RAW_LONGER -> diskBytes + 65536;
      case QCOW2 -> diskBytes;
    };
  }

  /** A new image; {@code contents} is what a compressed one holds. */
  MemoryStorage make(byte[] contents) throws IOException {
    // Snapshots are made by a tool that can't let the refcount table grow; without them it is as
    // short as it can be, so that the engine has to.
    long clustersMax = 4L * diskBytes / clusterBytes + 64 + (1 << 20) / clusterBytes;
    long tableEntries = clustersMax * refcountBits / 8 / clusterBytes + 1;
    int tableClusters =
        snapshots == 0 && place != Place.LUKS ? 1 : (int) (tableEntries * 8 / clusterBytes + 1);
    boolean backed = backing != Backing.NONE;
    String format = backing == Backing.QCOW2 ? "qcow2" : "raw";
    MemoryStorage file =
        ImageMaker.empty(
            version,
            extendedL2,
            clusterBytes,
            refcountBits,
            diskBytes,
            Math.max(tableClusters, tableClustersFor(preparation)),
            backed ? "base" : null,
            backed ? format : null);
    switch (preparation) {
      case EMPTY -> {}
      case ZSTD -> ImageMaker.useZstd(file);
      case PREALLOCATED -> ImageMaker.preallocate(file, Long.MAX_VALUE);
      case NEARLY_FULL -> {
        long countable = clusterBytes / 8L * (clusterBytes * 8L / refcountBits);
        ImageMaker.preallocate(file, countable - 25);
      }
      case COMPRESSED -> ImageMaker.compress(file, contents);
    }
    if (lazyRefcounts) {
      file.write(COMPATIBLE_FEATURES_AT, ByteBuffer.allocate(8).putLong(0, LAZY_REFCOUNTS));
    }
    switch (place) {
      case HERE -> {}
      case DATA_FILE -> ImageMaker.moveData(file, false);
      case RAW_DATA_FILE -> ImageMaker.moveData(file, true);
      case LUKS -> ImageMaker.encrypt(file);
    }
    return file;
  }

  private int tableClustersFor(Preparation how) {
    if (how == Preparation.EMPTY || how == Preparation.ZSTD || how == Preparation.NEARLY_FULL) {
      return 1;
    }
    long clusters = diskBytes / clusterBytes * 11L / 10 + 64;
    return (int) ((clusters * refcountBits / 8 / clusterBytes + 2) * 8 / clusterBytes + 1);
  }
}
