package io.qnbd.image.disk;

import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.create.Space;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.io.RangeLock;
import io.qnbd.image.mapping.ClusterMap;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;

/**
 * Gives guest clusters that read as zeroes host clusters of their own before anybody writes to
 * them, in an image without subclusters whose data is in the image file, in the clear. Thread-safe.
 */
final class Preallocating {
  private final Layers layers;
  private final RangeLock clusters;
  private final Growth.Step afterChange;

  Preallocating(Layers layers, RangeLock clusters, Growth.Step afterChange) {
    this.layers = layers;
    this.clusters = clusters;
    this.afterChange = afterChange;
  }

  /** Clusters that have something already are left as they are. */
  void run(long first, long last, Preallocation how, ProgressListener progress) throws IOException {
    for (long cluster = first; cluster < last; ) {
      long count = layers.map().clustersInTable(cluster, last - cluster);
      RangeLock.Hold hold = clusters.acquire(cluster, cluster + count - 1, true);
      try {
        for (long done = 0; done < count; ) {
          done += allocate(cluster + done, count - done, how);
        }
      } finally {
        clusters.release(hold);
      }
      afterChange.run();
      cluster += count;
      progress.progress("preallocating", cluster - first, last - first);
    }
  }

  /** Returns how many clusters it went over. */
  private int allocate(long cluster, long max, Preallocation how) throws IOException {
    HostRun run;
    boolean fresh;
    layers.metadata().lock();
    try {
      ClusterMap map = layers.map();
      map.prepare(cluster);
      if (!map.readsAsZeroes(cluster)) {
        return 1;
      }
      int wanted = 0;
      int countable = map.countToAllocate(cluster, max);
      while (wanted < countable && map.readsAsZeroes(cluster + wanted)) {
        wanted++;
      }
      if (wanted == 0) {
        return 1;
      }
      run = layers.allocator().allocate(wanted);
      fresh = layers.allocator().fresh(run);
    } finally {
      layers.metadata().unlock();
    }
    boolean done = false;
    try {
      fill(run, fresh, how);
      layers.metadata().lock();
      try {
        layers.map().assign(cluster, run);
      } finally {
        layers.metadata().unlock();
      }
      done = true;
    } finally {
      if (!done) {
        layers.metadata().lock();
        try {
          layers.allocator().giveBack(run);
        } finally {
          layers.metadata().unlock();
        }
      }
    }
    return run.count();
  }

  private void fill(HostRun run, boolean fresh, Preallocation how) throws IOException {
    Geometry geometry = layers.geometry();
    long at = geometry.offsetOf(run.first());
    long bytes = geometry.offsetOf(run.count());
    if (!fresh && how != Preallocation.FULL) {
      layers.file().zeroRange(at, bytes);
    }
    Space.take(layers.file(), at, bytes, how, ProgressListener.NONE);
  }
}
