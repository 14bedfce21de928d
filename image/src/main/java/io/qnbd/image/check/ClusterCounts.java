package io.qnbd.image.check;

import java.io.IOException;
import java.util.Arrays;
import java.util.NavigableMap;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * How often each host cluster is referenced, and by what, as the tables say.
 *
 * <p>Memory follows the references, not the length of the file: about 5.5 bytes for each cluster of
 * a file that is in use, in pages of 256 clusters. An image whose references are strewn over more
 * pages than {@code pagesMax} is refused rather than allowed to take all memory.
 *
 * <p>Counts stop at {@link Integer#MAX_VALUE}.
 *
 * <p>Owner: one check. Not thread-safe.
 */
final class ClusterCounts {
  private static final int PAGE_BITS = 8;
  private static final int PAGE_CLUSTERS = 1 << PAGE_BITS;

  /** A page's arrays with their headers, its map entry and the key. */
  static final int PAGE_BYTES = 1440;

  /** Marks, in {@link Page#uses}, a cluster whose stored refcount is one. */
  private static final byte STORED_ONE = 0x40;

  /** Marks, in {@link Page#uses}, an L2 table that the active L1 table was seen to name. */
  private static final byte ACTIVE = 0x20;

  private static final byte USE_MASK = 0x1f;

  private static final ClusterUse[] USES = ClusterUse.values();

  /** Counts, and for each cluster the number of its use, from 1, with the marks. */
  private static final class Page {
    final int[] counts = new int[PAGE_CLUSTERS];
    final byte[] uses = new byte[PAGE_CLUSTERS];
  }

  private final NavigableMap<Long, Page> pages = new TreeMap<>();
  private final int pagesMax;
  private long lastPageIndex = -1;
  private @Nullable Page lastPage;

  ClusterCounts(int pagesMax) {
    this.pagesMax = pagesMax;
  }

  /**
   * Counts {@code times} references.
   *
   * @return what the cluster is for already, if that excludes this use; else null
   */
  @Nullable ClusterUse add(long cluster, ClusterUse use, int times) throws IOException {
    Page page = page(cluster);
    if (page == null) {
      page = newPage(cluster);
    }
    int index = indexInPage(cluster);
    page.counts[index] = (int) Math.min(Integer.MAX_VALUE, (long) page.counts[index] + times);
    int number = page.uses[index] & USE_MASK;
    if (number == 0) {
      page.uses[index] |= (byte) use.number();
      return null;
    }
    ClusterUse before = USES[number - 1];
    return before == use && use.shareable() ? null : before;
  }

  /** Whether nothing is known of the cluster that excludes this use. */
  boolean mayBe(long cluster, ClusterUse use) {
    Page page = page(cluster);
    int number = page == null ? 0 : page.uses[indexInPage(cluster)] & USE_MASK;
    return number == 0 || (number == use.number() && use.shareable());
  }

  int count(long cluster) {
    Page page = page(cluster);
    return page == null ? 0 : page.counts[indexInPage(cluster)];
  }

  /** What a cluster that is referenced is for, as its first reference says. */
  ClusterUse useOf(long cluster) {
    Page page = page(cluster);
    int number = page == null ? 0 : page.uses[indexInPage(cluster)] & USE_MASK;
    if (number == 0) {
      throw new AssertionError("cluster " + cluster + " is not referenced");
    }
    return USES[number - 1];
  }

  /** Forgets what was counted of a cluster: nothing refers to it any more. */
  void remove(long cluster) {
    Page page = page(cluster);
    if (page != null) {
      page.counts[indexInPage(cluster)] = 0;
      page.uses[indexInPage(cluster)] = 0;
    }
  }

  /** Remembers, for clusters that are referenced, that the stored refcount is one. */
  void markStoredOne(long cluster) {
    Page page = page(cluster);
    if (page != null) {
      page.uses[indexInPage(cluster)] |= STORED_ONE;
    }
  }

  boolean storedOne(long cluster) {
    Page page = page(cluster);
    return page != null && (page.uses[indexInPage(cluster)] & STORED_ONE) != 0;
  }

  /** Says whether the cluster, if it is an L2 table and nothing else, comes for the first time. */
  boolean markActiveTable(long cluster) {
    Page page = page(cluster);
    if (page == null || !usedAs(page, indexInPage(cluster), ClusterUse.L2_TABLE)) {
      return false;
    }
    boolean first = (page.uses[indexInPage(cluster)] & ACTIVE) == 0;
    page.uses[indexInPage(cluster)] |= ACTIVE;
    return first;
  }

  /** Whether {@link #markActiveTable} was told of the cluster. */
  boolean activeTable(long cluster) {
    Page page = page(cluster);
    return page != null && (page.uses[indexInPage(cluster)] & ACTIVE) != 0;
  }

  private static boolean usedAs(Page page, int index, ClusterUse use) {
    int number = page.uses[index] & USE_MASK;
    return number != 0 && USES[number - 1] == use;
  }

  /** The clusters first referenced for that use, ascending. */
  long[] clustersOf(ClusterUse use) {
    long[] clusters = new long[16];
    int count = 0;
    for (var entry : pages.entrySet()) {
      for (int index = 0; index < PAGE_CLUSTERS; index++) {
        if (usedAs(entry.getValue(), index, use)) {
          if (count == clusters.length) {
            clusters = Arrays.copyOf(clusters, 2 * count);
          }
          clusters[count++] = entry.getKey() * PAGE_CLUSTERS + index;
        }
      }
    }
    return Arrays.copyOf(clusters, count);
  }

  /** The first referenced cluster from {@code from} on and before {@code end}, or {@code end}. */
  long nextReferenced(long from, long end) {
    if (from >= end) {
      return end;
    }
    for (var entry : pages.tailMap(from >>> PAGE_BITS, true).entrySet()) {
      long pageStart = entry.getKey() * PAGE_CLUSTERS;
      if (pageStart >= end) {
        break;
      }
      for (int index = (int) Math.max(0, from - pageStart); index < PAGE_CLUSTERS; index++) {
        if (entry.getValue().counts[index] != 0) {
          return Math.min(end, pageStart + index);
        }
      }
    }
    return end;
  }

  /** One more than the last referenced cluster, 0 if there is none. */
  long end() {
    for (var entry : pages.descendingMap().entrySet()) {
      for (int index = PAGE_CLUSTERS - 1; index >= 0; index--) {
        if (entry.getValue().counts[index] != 0) {
          return entry.getKey() * PAGE_CLUSTERS + index + 1;
        }
      }
    }
    return 0;
  }

  private static int indexInPage(long cluster) {
    return (int) (cluster & (PAGE_CLUSTERS - 1));
  }

  private @Nullable Page page(long cluster) {
    long pageIndex = cluster >>> PAGE_BITS;
    if (pageIndex != lastPageIndex) {
      lastPageIndex = pageIndex;
      lastPage = pages.get(pageIndex);
    }
    return lastPage;
  }

  private Page newPage(long cluster) throws IOException {
    if (pages.size() >= pagesMax) {
      throw new IOException(
          String.format(
              "the check needs more than %d MiB of memory: give Java a larger heap",
              ((long) pagesMax * PAGE_BYTES) >> 20));
    }
    Page page = new Page();
    lastPageIndex = cluster >>> PAGE_BITS;
    lastPage = page;
    pages.put(lastPageIndex, page);
    return page;
  }
}
