package io.qnbd.image.refcount;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Clusters that are counted as used on disk and referred to by nothing: reserved ahead (REF+), or
 * freed and not yet written as free.
 *
 * <p>Invariant: runs don't touch or overlap, but where they differ in when they become fresh.
 *
 * <p>Owner: the image's metadata lock.
 */
final class ClusterPool {
  private final TreeMap<Long, HostRun> runs = new TreeMap<>();
  private long clusters;

  long clusters() {
    return clusters;
  }

  int runCount() {
    return runs.size();
  }

  void add(HostRun run) {
    HostRun merged = run;
    Map.Entry<Long, HostRun> below = runs.lowerEntry(run.first());
    if (below != null && below.getValue().joins(merged)) {
      runs.remove(below.getKey());
      merged = below.getValue().join(merged);
    }
    HostRun above = runs.get(run.end());
    if (above != null && merged.joins(above)) {
      runs.remove(above.first());
      merged = merged.join(above);
    }
    runs.put(merged.first(), merged);
    clusters += run.count();
  }

  /**
   * Takes {@code wanted} clusters from the shortest run that has them, so that a freed hole is used
   * by the next request that it fits and long runs stay long; null when no run is long enough.
   */
  @Nullable HostRun takeFitting(int wanted) {
    HostRun best = null;
    for (HostRun run : runs.values()) {
      if (run.count() >= wanted && (best == null || run.count() < best.count())) {
        best = run;
        if (run.count() == wanted) {
          break;
        }
      }
    }
    return best == null ? null : take(best, wanted);
  }

  /** Takes the longest run, whole; null when the pool is empty. */
  @Nullable HostRun takeLongest() {
    HostRun longest = null;
    for (HostRun run : runs.values()) {
      if (longest == null || run.count() > longest.count()) {
        longest = run;
      }
    }
    return longest == null ? null : take(longest, longest.count());
  }

  /** Takes the one cluster, if a run begins with it. */
  @Nullable HostRun take(long cluster) {
    HostRun run = runs.get(cluster);
    return run == null ? null : take(run, 1);
  }

  private HostRun take(HostRun run, int wanted) {
    runs.remove(run.first());
    clusters -= wanted;
    if (run.count() > wanted) {
      HostRun rest = run.tail(wanted);
      runs.put(rest.first(), rest);
    }
    return run.head(wanted);
  }

  /** Empties the pool. */
  List<HostRun> takeAll() {
    List<HostRun> all = new ArrayList<>(runs.values());
    runs.clear();
    clusters = 0;
    return all;
  }
}
