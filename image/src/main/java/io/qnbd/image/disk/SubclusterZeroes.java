package io.qnbd.image.disk;

import io.qnbd.image.ZeroMode;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Subclusters;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.mapping.SubclusterMap;
import java.io.IOException;

/**
 * Trims and zeroes parts of clusters, in the tables where they are whole subclusters. Thread-safe.
 */
final class SubclusterZeroes {
  /** Zeroes a range by other means; it may be empty. */
  interface Explicit {
    void zero(long from, long to) throws IOException;
  }

  private final Layers layers;
  private final SubclusterMap map;
  private final ZeroWriter zeroes;

  SubclusterZeroes(Layers layers, SubclusterMap map, ZeroWriter zeroes) {
    this.layers = layers;
    this.map = map;
    this.zeroes = zeroes;
  }

  private interface Step {
    /**
     * Part of one cluster.
     *
     * @param whole where its first whole subcluster begins, and {@code wholeEnd} its last ends,
     *     which may be behind {@code to} where the disk ends; equal if there is none
     */
    boolean run(long from, long whole, long wholeEnd, long to) throws IOException;
  }

  /**
   * @param diskBytes where the disk ends: there a subcluster is whole with what there is of it
   * @return false as soon as a step does, else true
   */
  private boolean forEachCluster(long from, long to, long diskBytes, Step step) throws IOException {
    Geometry geometry = layers.geometry();
    int unit = geometry.subclusterBytes();
    for (long at = from; at < to; ) {
      long end = Math.min(to, geometry.offsetOf(geometry.clusterOf(at) + 1));
      long wholeEnd = (end == diskBytes ? Math.ceilDiv(end, unit) : end / unit) * unit;
      long whole = Math.min(Math.ceilDiv(at, unit) * unit, wholeEnd);
      if (!step.run(at, Math.max(at, whole), Math.max(at, wholeEnd), end)) {
        return false;
      }
      at = end;
    }
    return true;
  }

  /** Zeroes a range that the caller holds exclusively. */
  void zero(long from, long to, long diskBytes, ZeroMode mode, Explicit explicit)
      throws IOException {
    forEachCluster(
        from,
        to,
        diskBytes,
        (at, whole, wholeEnd, end) -> {
          if (whole < wholeEnd && mark(whole, wholeEnd, mode)) {
            explicit.zero(at, whole);
            explicit.zero(Math.min(wholeEnd, end), end);
          } else {
            explicit.zero(at, end);
          }
          return true;
        });
  }

  private boolean mark(long whole, long wholeEnd, ZeroMode mode) throws IOException {
    layers.metadata().lock();
    try {
      if (!canMark(whole, mode)) {
        return false;
      }
      drop(whole, wholeEnd, mode == ZeroMode.KEEP_ALLOCATED ? Dropped.KEPT : Dropped.MARKED);
      return true;
    } finally {
      layers.metadata().unlock();
    }
  }

  private boolean canMark(long offset, ZeroMode mode) throws IOException {
    long cluster = layers.geometry().clusterOf(offset);
    return switch (mode) {
      case MAY_UNMAP -> !map.compressed(cluster);
      case KEEP_ALLOCATED -> map.owned(cluster);
    };
  }

  private void drop(long whole, long wholeEnd, Dropped how) throws IOException {
    Geometry geometry = layers.geometry();
    long cluster = geometry.clusterOf(whole);
    if (layers.map().tableMissing(cluster) && zeroes.nothingBelow(cluster)) {
      return;
    }
    int mask =
        Subclusters.mask(geometry.subclusterOf(whole), geometry.subclusterOf(wholeEnd - 1) + 1);
    layers.map().prepare(cluster);
    map.drop(cluster, mask, how);
  }

  /**
   * Whether {@link #zero} would now write nothing to the file for this range, but what reads as
   * zeroes already. No range need be held.
   */
  boolean canZeroFast(long from, long to, long diskBytes, ZeroMode mode) throws IOException {
    boolean keep = mode == ZeroMode.KEEP_ALLOCATED;
    return forEachCluster(
        from,
        to,
        diskBytes,
        (at, whole, wholeEnd, end) -> {
          long markedEnd = Math.min(wholeEnd, end);
          return zeroes.isZeroAlready(at, whole, keep)
              && zeroes.isZeroAlready(markedEnd, end, keep)
              && (canMarkNow(whole, mode) || zeroes.isZeroAlready(whole, markedEnd, keep));
        });
  }

  private boolean canMarkNow(long offset, ZeroMode mode) throws IOException {
    layers.metadata().lock();
    try {
      return canMark(offset, mode);
    } finally {
      layers.metadata().unlock();
    }
  }

  /** Trims a range that the caller holds exclusively; parts of subclusters are left alone. */
  void trim(long from, long to, long diskBytes) throws IOException {
    layers.metadata().lock();
    try {
      forEachCluster(
          from,
          to,
          diskBytes,
          (_, whole, wholeEnd, _) -> {
            if (whole < wholeEnd && canMark(whole, ZeroMode.MAY_UNMAP)) {
              drop(whole, wholeEnd, Dropped.UNMAPPED);
            }
            return true;
          });
    } finally {
      layers.metadata().unlock();
    }
  }
}
