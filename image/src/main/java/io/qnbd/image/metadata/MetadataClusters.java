package io.qnbd.image.metadata;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Which clusters of an open image hold metadata, and which.
 *
 * <p>Single clusters, of which an image may have millions, are in a hash table of one long each:
 * the cluster's number and, in the low bits, its use. Structures of several clusters, of which
 * there are few, are ranges, so that a header which claims large ones costs no memory.
 *
 * <p>Invariant: no cluster is in it twice.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class MetadataClusters {
  private static final int USE_BITS = 4;
  private static final int SLOTS_MIN = 64;

  /** A structure of several clusters. */
  private record Range(long first, long end, MetadataUse use) {}

  /** 0 for an empty slot; at most three quarters are full. */
  private long[] slots;

  private int singles;
  private final TreeMap<Long, Range> ranges = new TreeMap<>();

  /** Room for that many single clusters before it must grow. */
  public MetadataClusters(int singlesExpected) {
    slots = new long[slotsFor(singlesExpected)];
  }

  private static int slotsFor(int count) {
    int slots = SLOTS_MIN;
    while (slots / 4 * 3 < count) {
      slots *= 2;
    }
    return slots;
  }

  /** What the cluster holds; null for no metadata. */
  public @Nullable MetadataUse at(long cluster) {
    long found = slots[slotOf(cluster)];
    if (found != 0) {
      return MetadataUse.of((int) (found & ((1 << USE_BITS) - 1)));
    }
    Map.Entry<Long, Range> below = ranges.floorEntry(cluster);
    return below != null && cluster < below.getValue().end() ? below.getValue().use() : null;
  }

  /** The first cluster of the range that holds metadata; -1 if none does. */
  public long firstIn(long first, long count) {
    if (singles == 0 && ranges.isEmpty()) {
      return -1;
    }
    for (long cluster = first; cluster < first + count; cluster++) {
      if (at(cluster) != null) {
        return cluster;
      }
    }
    return -1;
  }

  /**
   * Notes what clusters hold. Where that contradicts what was noted before, nothing is noted.
   *
   * @return the first cluster that holds something else; -1 if none does
   */
  public long add(MetadataUse use, long first, long count) {
    if (count == 1) {
      return addSingle(use, first);
    }
    Map.Entry<Long, Range> below = ranges.lowerEntry(first + count);
    if (below != null && below.getValue().end() > first) {
      return Math.max(first, below.getValue().first());
    }
    long single = singleIn(first, first + count);
    if (single < 0) {
      ranges.put(first, new Range(first, first + count, use));
    }
    return single;
  }

  private long addSingle(MetadataUse use, long cluster) {
    MetadataUse before = at(cluster);
    if (before != null) {
      // Two L1 entries may share a table: then neither owns it.
      return before == use && use == MetadataUse.L2_TABLE ? -1 : cluster;
    }
    if (singles + 1 > slots.length / 4 * 3) {
      grow();
    }
    slots[slotOf(cluster)] = cluster << USE_BITS | use.number();
    singles++;
    return -1;
  }

  /** The lower of the two ways: through the range, or through all there are. */
  private long singleIn(long first, long end) {
    long lowest = -1;
    if (end - first < slots.length) {
      for (long cluster = first; cluster < end; cluster++) {
        if (slots[slotOf(cluster)] != 0) {
          return cluster;
        }
      }
      return -1;
    }
    for (long slot : slots) {
      long cluster = slot >>> USE_BITS;
      if (slot != 0 && cluster >= first && cluster < end && (lowest < 0 || cluster < lowest)) {
        lowest = cluster;
      }
    }
    return lowest;
  }

  /** The clusters hold no metadata any more, if they did. */
  public void remove(long first, long count) {
    long end = first + count;
    List<Range> cut = new ArrayList<>();
    Map.Entry<Long, Range> below = ranges.lowerEntry(end);
    while (below != null && below.getValue().end() > first) {
      cut.add(below.getValue());
      ranges.remove(below.getKey());
      below = ranges.lowerEntry(end);
    }
    for (Range range : cut) {
      putBack(new Range(range.first(), Math.min(range.end(), first), range.use()));
      putBack(new Range(Math.max(range.first(), end), range.end(), range.use()));
    }
    for (long cluster = first; singles > 0 && cluster < end; cluster++) {
      removeSingle(cluster);
    }
  }

  private void putBack(Range rest) {
    if (rest.first() < rest.end()) {
      ranges.put(rest.first(), rest);
    }
  }

  private void removeSingle(long cluster) {
    int hole = slotOf(cluster);
    if (slots[hole] == 0) {
      return;
    }
    int mask = slots.length - 1;
    // What follows without a gap may have wanted this slot, or one before it.
    for (int at = (hole + 1) & mask; slots[at] != 0; at = (at + 1) & mask) {
      int home = hash(slots[at] >>> USE_BITS);
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        slots[hole] = slots[at];
        hole = at;
      }
    }
    slots[hole] = 0;
    singles--;
  }

  /** The cluster's slot, or the empty one where it would go. */
  private int slotOf(long cluster) {
    int at = hash(cluster);
    while (slots[at] != 0 && slots[at] >>> USE_BITS != cluster) {
      at = (at + 1) & (slots.length - 1);
    }
    return at;
  }

  private int hash(long cluster) {
    long mixed = cluster * 0x9e37_79b9_7f4a_7c15L;
    return (int) (mixed >>> 32) & (slots.length - 1);
  }

  private void grow() {
    long[] old = slots;
    slots = new long[2 * old.length];
    for (long slot : old) {
      if (slot != 0) {
        slots[slotOf(slot >>> USE_BITS)] = slot;
      }
    }
  }
}
