package io.qnbd.image.check;

import java.util.HashMap;
import java.util.Map;

/**
 * A few bits for each host cluster, in pages that exist where any is set.
 *
 * <p>Owner: one walk. Not thread-safe.
 */
final class ClusterMarks {
  /** Referred to by the active tables. */
  static final int ACTIVE = 1;

  /** Holds bytes of a compressed cluster. */
  static final int COMPRESSED = 2;

  /** Referred to as data that does not merely read as zeroes. */
  static final int PLAIN = 4;

  private static final int PAGE_BITS = 8;
  private static final int PAGE_CLUSTERS = 1 << PAGE_BITS;

  private final Map<Long, byte[]> pages = new HashMap<>();
  private long lastIndex = -1;
  private byte[] last = new byte[0];

  void add(long cluster, int mark) {
    if (cluster >>> PAGE_BITS != lastIndex) {
      lastIndex = cluster >>> PAGE_BITS;
      last = pages.computeIfAbsent(lastIndex, _ -> new byte[PAGE_CLUSTERS]);
    }
    last[(int) cluster & (PAGE_CLUSTERS - 1)] |= (byte) mark;
  }

  int get(long cluster) {
    byte[] page = pages.get(cluster >>> PAGE_BITS);
    return page == null ? 0 : page[(int) cluster & (PAGE_CLUSTERS - 1)];
  }
}
