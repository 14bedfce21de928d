package io.qnbd.image.refcount;

import java.util.Arrays;

/**
 * REF-: host clusters whose refcount must fall by one, kept in memory until the commit that makes
 * the removal of the references durable.
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>A cluster enters only after the entry that referred to it was overwritten in memory.
 *   <li>That entry is durable before any decrement of the batch is applied, and before the cluster
 *       is handed out again. Losing the whole batch in a crash leaks clusters and never allocates
 *       one twice.
 *   <li>The same cluster may be in it more than once: compressed clusters share a host cluster.
 * </ul>
 *
 * <p>Owner: the image's metadata lock.
 */
public final class ReleaseBatch {
  private long[] clusters = new long[64];
  private int count;

  public void add(long cluster) {
    if (count == clusters.length) {
      clusters = Arrays.copyOf(clusters, count * 2);
    }
    clusters[count++] = cluster;
  }

  public void addAll(ReleaseBatch other) {
    for (int i = 0; i < other.count; i++) {
      add(other.clusters[i]);
    }
  }

  public int count() {
    return count;
  }

  /** The clusters in ascending order, equal ones side by side. */
  long[] sorted() {
    long[] sorted = Arrays.copyOf(clusters, count);
    Arrays.sort(sorted);
    return sorted;
  }
}
