package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.mapping.Mapping;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;

/**
 * Trims and zeroes whole clusters in the tables. The caller holds the range of the clusters
 * exclusively. Thread-safe.
 */
final class ZeroWriter {
  private final Layers layers;

  private final ExtentWalk extents;

  ZeroWriter(Layers layers, ExtentWalk extents) {
    this.layers = layers;
    this.extents = extents;
  }

  /**
   * Whether the tables can say of the cluster that it reads as zeroes: a version 2 image can't over
   * a backing file, whose bytes an empty entry lets through.
   */
  boolean canDrop(long cluster) {
    return layers.zeroFlagKnown()
        || layers.backing() == null
        || layers.geometry().offsetOf(cluster) >= layers.backing().virtualBytes();
  }

  /** The cluster from which on all are such that {@link #canDrop} allows. */
  long firstThatCanDrop() {
    DiskImage backing = layers.backing();
    if (layers.zeroFlagKnown() || backing == null) {
      return 0;
    }
    return layers.geometry().clustersFor(backing.virtualBytes());
  }

  /**
   * Whether the tables say already that all of {@code [from, to)} reads as zeroes and, if {@code
   * allocated}, that it can be written in place. True of an empty range.
   */
  boolean isZeroAlready(long from, long to, boolean allocated) throws IOException {
    return allocated ? isAllocatedZero(from, to) : extents.isZero(from, to);
  }

  private boolean isAllocatedZero(long from, long to) throws IOException {
    for (long at = from; at < to; ) {
      Mapping mapping;
      layers.metadata().lock();
      try {
        mapping = layers.map().lookup(at, to - at);
      } finally {
        layers.metadata().unlock();
      }
      if (!(mapping instanceof Mapping.Zeros zeros) || !zeros.allocated() || !zeros.sole()) {
        return false;
      }
      at += mapping.bytes();
    }
    return true;
  }

  /**
   * Makes clusters, all in one L2 table, read as zeroes and releases what they have. Each must be
   * one that {@link #canDrop} allows.
   */
  void drop(long cluster, long count, Dropped how) throws IOException {
    layers.metadata().lock();
    try {
      ClusterMap map = layers.map();
      if (map.tableMissing(cluster) && nothingBelow(cluster)) {
        return;
      }
      map.prepare(cluster);
      for (long done = 0; done < count; ) {
        int inSlice = map.clustersInSlice(cluster + done, count - done);
        map.drop(cluster + done, inSlice, how);
        done += inSlice;
      }
    } finally {
      layers.metadata().unlock();
    }
  }

  /** Whether there is nothing below the cluster. */
  boolean nothingBelow(long cluster) {
    return layers.backing() == null
        || layers.geometry().offsetOf(cluster) >= layers.backing().virtualBytes();
  }

  /**
   * Makes clusters, all in one L2 table, read as zeroes and gives each a host cluster with space
   * behind it. Version 3 only.
   */
  void keepAllocated(long cluster, long count) throws IOException {
    for (long done = 0; done < count; ) {
      done += keepSomeAllocated(cluster + done, count - done);
    }
  }

  private int keepSomeAllocated(long cluster, long count) throws IOException {
    ClusterMap map = layers.map();
    HostRun run;
    layers.metadata().lock();
    try {
      map.prepare(cluster);
      int missing = map.countToAllocate(cluster, count);
      if (missing == 0) {
        map.drop(cluster, 1, Dropped.KEPT);
        return 1;
      }
      run = layers.allocator().allocate(missing);
    } finally {
      layers.metadata().unlock();
    }
    Geometry geometry = layers.geometry();
    boolean done = false;
    try {
      layers.file().allocate(geometry.offsetOf(run.first()), geometry.offsetOf(run.count()));
      done = true;
    } finally {
      layers.metadata().lock();
      try {
        if (done) {
          map.assignZero(cluster, run);
        } else {
          layers.allocator().giveBack(run);
        }
      } finally {
        layers.metadata().unlock();
      }
    }
    return run.count();
  }
}
