package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.oracle.RawBitmaps.Found;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/** What the bitmaps of an image must say, and what a power cut may leave of each. */
final class BitmapBook {
  /** A bitmap at rest. */
  private record State(BitSet bits, boolean auto) {}

  /**
   * A bitmap and what a cut may find.
   *
   * @param states at rest: one of these
   * @param inUse it may be marked as in use instead
   * @param missing it may not be there
   */
  private record Cut(List<State> states, boolean inUse, boolean missing) {}

  /** What a cut at one moment may find. */
  record Allowed(Map<String, Cut> bitmaps, boolean nothing) {
    /** Fails if the bitmaps are others; {@code none} if the header says that all are wrong. */
    void check(List<Found> found, boolean none) {
      if (none && nothing) {
        return;
      }
      for (Found bitmap : found) {
        Cut cut = bitmaps.get(bitmap.name());
        boolean right =
            cut != null
                && (bitmap.inUse()
                    ? cut.inUse()
                    : cut.states().contains(new State(bitmap.bits(), bitmap.auto())));
        if (!right) {
          throw new AssertionError("found " + bitmap + ", allowed is " + cut);
        }
      }
      bitmaps.forEach((name, cut) -> {
        if (!cut.missing() && found.stream().noneMatch(bitmap -> bitmap.name().equals(name))) {
          throw new AssertionError("bitmap " + name + " is missing");
        }
      });
    }
  }

  /** One bitmap. */
  static final class Entry {
    final int granularityBits;
    BitSet bits = new BitSet();
    boolean enabled;

    /** Whether the file has it marked as in use. */
    boolean changing;

    Entry(int granularityBits, boolean enabled) {
      this.granularityBits = granularityBits;
      this.enabled = enabled;
    }

    void set(long offset, long bytes) {
      if (bytes > 0) {
        bits.set(
            (int) (offset >> granularityBits), (int) ((offset + bytes - 1) >> granularityBits) + 1);
      }
    }

    private State state() {
      return new State((BitSet) bits.clone(), enabled);
    }
  }

  final Map<String, Entry> entries = new LinkedHashMap<>();
  private final Map<String, Cut> inFlight = new LinkedHashMap<>();
  private boolean nothing;
  private boolean begun;

  synchronized Allowed allowed() {
    Map<String, Cut> cuts = new LinkedHashMap<>();
    entries.forEach((name, entry) ->
        cuts.put(
            name,
            new Cut(entry.changing ? List.of() : List.of(entry.state()), entry.changing, false)));
    cuts.putAll(inFlight);
    return new Allowed(cuts, nothing);
  }

  boolean begun() {
    return begun;
  }

  /** A bitmap's change begins: a cut may find what is said now, or this, or that it is in use. */
  synchronized void begin(String name, BitSet bits, boolean enabled, boolean maybeInUse) {
    List<State> states = new ArrayList<>();
    Entry entry = entries.get(name);
    if (entry != null && !entry.changing) {
      states.add(entry.state());
    }
    states.add(new State((BitSet) bits.clone(), enabled));
    inFlight.put(
        name, new Cut(states, maybeInUse || (entry != null && entry.changing), entry == null));
  }

  /** A bitmap is about to go. */
  synchronized void beginRemoval(String name) {
    Entry entry = entries.get(name);
    if (entry == null) {
      throw new AssertionError(name);
    }
    inFlight.put(
        name, new Cut(entry.changing ? List.of() : List.of(entry.state()), entry.changing, true));
  }

  /** The header is about to change, perhaps in more steps than one. */
  synchronized void mayLoseAll() {
    nothing = true;
  }

  /** The first change of the disk is about to mark the enabled bitmaps. */
  synchronized void beginSession() {
    if (!begun) {
      entries.forEach((name, entry) -> {
        if (entry.enabled) {
          begin(name, entry.bits, true, true);
        }
      });
    }
  }

  synchronized void sessionBegun() {
    begun = true;
    inFlight.clear();
    entries.values().forEach(entry -> entry.changing |= entry.enabled);
  }

  /** The image is about to be closed. */
  synchronized void beginClose() {
    entries.forEach((name, entry) -> {
      if (entry.changing) {
        begin(name, entry.bits, entry.enabled, true);
      }
    });
  }

  synchronized void closed() {
    begun = false;
    entries.values().forEach(entry -> entry.changing = false);
    ended();
  }

  synchronized void ended() {
    inFlight.clear();
    nothing = false;
  }

  /** Fails unless the image at rest has these bitmaps. */
  void checkAtRest(List<Found> found) {
    assertEquals(new TreeSet<>(entries.keySet()), names(found));
    for (Found bitmap : found) {
      Entry entry = entries.get(bitmap.name());
      if (entry == null || bitmap.inUse() || bitmap.auto() != entry.enabled) {
        throw new AssertionError("found " + bitmap);
      }
      assertEquals(entry.bits, bitmap.bits(), bitmap.name());
    }
  }

  private static Set<String> names(List<Found> found) {
    return new TreeSet<>(found.stream().map(Found::name).toList());
  }
}
