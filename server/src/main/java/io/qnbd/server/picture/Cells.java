package io.qnbd.server.picture;

import io.qnbd.image.ClusterKind;
import io.qnbd.image.LayoutSink;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/**
 * Gathers clusters into at most {@link #CELLS_MAX} cells of equally many, whatever the file's
 * length.
 *
 * <p>Owner: the thread that draws.
 */
public final class Cells implements LayoutSink {
  /** 64 rows of 64 fill a screen and stay apart to the eye. */
  static final int CELLS_MAX = 4096;

  private long clusters;
  private int clusterBytes = 1;
  private long clustersPerCell = 1;
  private final List<Map<ClusterKind, Long>> cells = new ArrayList<>();
  private final Map<ClusterKind, Long> totals = new EnumMap<>(ClusterKind.class);
  private long at;

  @Override
  public void begin(long count, int bytes) {
    clusters = count;
    clusterBytes = bytes;
    while (clustersPerCell * CELLS_MAX < count) {
      clustersPerCell *= 2;
    }
    for (long first = 0; first < count; first += clustersPerCell) {
      cells.add(new EnumMap<>(ClusterKind.class));
    }
  }

  @Override
  public void clusters(long count, ClusterKind kind) {
    totals.merge(kind, count, Long::sum);
    for (long left = count; left > 0; ) {
      long inCell = Math.min(left, clustersPerCell - at % clustersPerCell);
      cells.get((int) (at / clustersPerCell)).merge(kind, inCell, Long::sum);
      at += inCell;
      left -= inCell;
    }
  }

  long clusters() {
    return clusters;
  }

  int clusterBytes() {
    return clusterBytes;
  }

  long clustersPerCell() {
    return clustersPerCell;
  }

  int count() {
    return cells.size();
  }

  /** How many clusters of a cell are of a kind. */
  long of(int cell, ClusterKind kind) {
    return cells.get(cell).getOrDefault(kind, 0L);
  }

  /** How many clusters of the file are of a kind. */
  public long total(ClusterKind kind) {
    return totals.getOrDefault(kind, 0L);
  }
}
