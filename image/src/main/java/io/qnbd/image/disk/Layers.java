package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.codec.ClusterCodec;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.metadata.DirtyBit;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.snapshot.SnapshotDirectory;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * What an open image consists of, for the classes of this package.
 *
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
    Geometry geometry,
    long virtualBytes,
    boolean zeroFlagKnown,
    ReentrantLock metadata,
    ClusterMap map,
    Allocator allocator,
    Barrier barrier,
    DirtyBit dirtyBit,
    SnapshotDirectory directory,
    @Nullable DiskImage backing,
    ClusterCodec codec,
    ClusterCache cache,
    Scratch scratch) {}
