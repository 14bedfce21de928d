package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.mapping.Mapping;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Trims and zeroes whole clusters in the tables. The caller holds the range of the clusters
 * exclusively. Thread-safe.
 */
final class ZeroWriter {
  private static final Logger LOG = LoggerFactory.getLogger(ZeroWriter.class);

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
    DataFile dataFile = layers.dataFile();
    if (dataFile == null) {
      dropInTables(cluster, count, how);
      return;
    }
    // What the tables have as data until the next commit reads as zeroes from now on: old or new.
    long at = layers.geometry().offsetOf(cluster);
    long length = dataFile.storage().length();
    long bytes = Math.max(0, Math.min(layers.geometry().offsetOf(count), length - at));
    if (dataFile.raw()) {
      if (bytes > 0) {
        dataFile.storage().punchHole(at, bytes);
      }
      dropInTables(cluster, count, Dropped.KEPT);
    } else {
      dropInTables(cluster, count, how);
      if (bytes > 0) {
        giveBackSpace(dataFile, at, bytes);
      }
    }
  }

  /** Best effort: the tables say already that it reads as zeroes. */
  private static void giveBackSpace(DataFile dataFile, long at, long bytes) {
    try {
      dataFile.storage().tryZero(at, bytes, ZeroMode.MAY_UNMAP);
    } catch (IOException e) {
      LOG.debug("{}: space not given back: {}", dataFile.storage().name(), e.getMessage());
    }
  }

  /**
   * Whether zeroing clusters writes no zeroes: tables do it or, with a raw data file, its host.
   * That one is asked with the first of them, which reads as zeroes afterwards if the answer is
   * yes.
   */
  boolean zeroesFast(long cluster, ZeroMode mode) throws IOException {
    DataFile dataFile = layers.dataFile();
    if (dataFile == null || !dataFile.raw()) {
      return true;
    }
    long at = layers.geometry().offsetOf(cluster);
    long bytes = Math.min(layers.geometry().clusterBytes(), dataFile.storage().length() - at);
    return bytes <= 0 || dataFile.storage().tryZero(at, bytes, mode);
  }

  private void dropInTables(long cluster, long count, Dropped how) throws IOException {
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
    DataFile dataFile = layers.dataFile();
    if (dataFile != null && dataFile.raw()) {
      // Not behind its end: the raw image keeps its length.
      long at = layers.geometry().offsetOf(cluster);
      long end = Math.min(at + layers.geometry().offsetOf(count), dataFile.storage().length());
      dataFile.storage().zeroRange(at, Math.max(0, end - at));
      dropInTables(cluster, count, Dropped.KEPT);
      return;
    }
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
      run = layers.clusters().allocate(cluster, missing);
    } finally {
      layers.metadata().unlock();
    }
    Geometry geometry = layers.geometry();
    boolean done = false;
    try {
      layers.data().allocate(geometry.offsetOf(run.first()), geometry.offsetOf(run.count()));
      done = true;
    } finally {
      layers.metadata().lock();
      try {
        if (done) {
          map.assignZero(cluster, run);
        } else {
          layers.clusters().giveBack(run);
        }
      } finally {
        layers.metadata().unlock();
      }
    }
    return run.count();
  }
}
