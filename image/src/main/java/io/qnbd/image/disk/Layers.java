package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.codec.ClusterCodec;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.DirtyBit;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.DataClusters;
import io.qnbd.image.snapshot.SnapshotDirectory;
import java.io.IOException;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * What an open image consists of, for the classes of this package.
 *
 * @param file the image file: all metadata
 * @param data where guest clusters are read and written, by host offset: {@code file}, {@code file}
 *     decrypted, or the data file
 * @param dataFile the external data file, or null
 * @param numberedByGuest {@code data} once more where sectors are encrypted by their place on the
 *     disk, or null
 * @param clusters guards as {@code allocator}; where host clusters for guests come from
 * @param cryptMethod the header's field
 * @param virtualBytes the disk's size when the image was opened
 * @param metadata guards {@code map}, {@code allocator}, {@code barrier}, {@code dirtyBit} and
 *     {@code directory}. Taken after the range lock of the guest clusters concerned, never before
 *     one, and never held while guest data is read or written; table reads and writes do happen
 *     under it
 * @param backing the disk below, or null
 * @param zeroFlagKnown whether the format can say "reads as zeroes" of a cluster: version 3 on
 * @param codec how clusters are compressed; closed with the image
 * @param cache clusters that were decompressed; closed with the image
 */
record Layers(
    LatchedStorage file,
    Storage data,
    @Nullable DataFile dataFile,
    @Nullable EncryptedStorage numberedByGuest,
    Geometry geometry,
    int cryptMethod,
    long virtualBytes,
    boolean zeroFlagKnown,
    ReentrantLock metadata,
    ClusterMap map,
    Allocator allocator,
    DataClusters clusters,
    Barrier barrier,
    DirtyBit dirtyBit,
    SnapshotDirectory directory,
    @Nullable DiskImage backing,
    ClusterCodec codec,
    ClusterCache cache,
    Scratch scratch) {

  /**
   * Whether a sync of any file has failed, or the image is corrupt: nothing is changed any more.
   */
  boolean failed() {
    return file.failed() || (dataFile != null && dataFile.storage().failed());
  }

  /** What those are told who try to change something then; null while all files work. */
  @Nullable String failure() {
    String failure = file.failure();
    return failure == null && dataFile != null ? dataFile.storage().failure() : failure;
  }

  /** Makes durable what guests wrote, where that is not in the image file. */
  void syncDataFile() throws IOException {
    if (dataFile != null) {
      syncOrFailBoth(dataFile.storage(), file);
    }
  }

  /** Makes the image file durable. */
  void syncFile() throws IOException {
    if (dataFile == null) {
      file.sync();
    } else {
      syncOrFailBoth(file, dataFile.storage());
    }
  }

  /** What one file has lost the other refers to, or is referred to by. */
  private static void syncOrFailBoth(LatchedStorage storage, LatchedStorage other)
      throws IOException {
    boolean done = false;
    try {
      storage.sync();
      done = true;
    } finally {
      if (!done) {
        other.giveUp("a sync of " + storage.name() + " failed");
      }
    }
  }

  /** Whether a raw data file is kept in step with the disk. */
  boolean keepsRaw() {
    return dataFile != null && dataFile.raw();
  }

  /** Syncs of all files so far. */
  long syncs() {
    return file.syncs() + (dataFile == null ? 0 : dataFile.storage().syncs());
  }
}
