package io.qnbd.image.refcount;

import java.util.Map;
import java.util.TreeMap;

/**
 * The clusters that became unused in this session, as far as they are remembered: those behind all
 * others, because only the end of a file can be cut off.
 *
 * <p>Owner: the image's metadata lock.
 */
final class FreedTail {
  /** Some 300 KiB; a file that is longer than need be does no harm. */
  private static final int RUNS_MAX = 4096;

  /** Where runs begin, and where they end; they don't touch. */
  private final TreeMap<Long, Long> runs = new TreeMap<>();

  void add(HostRun run) {
    long first = run.first();
    long end = run.end();
    Map.Entry<Long, Long> other = runs.floorEntry(end);
    while (other != null && other.getValue() >= first) {
      first = Math.min(first, other.getKey());
      end = Math.max(end, other.getValue());
      runs.remove(other.getKey());
      other = runs.floorEntry(end);
    }
    runs.put(first, end);
    if (runs.size() > RUNS_MAX) {
      runs.pollFirstEntry();
    }
  }

  boolean contains(long cluster) {
    Map.Entry<Long, Long> run = runs.floorEntry(cluster);
    return run != null && cluster < run.getValue();
  }
}
