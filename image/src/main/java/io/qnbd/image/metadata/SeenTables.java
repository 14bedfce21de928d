package io.qnbd.image.metadata;

/**
 * L2 tables that a walk has been through, since those of a disk and its snapshots are mostly the
 * same. Remembers a limited number, so that an image that claims more costs time and not memory:
 * what it does not remember is walked through again.
 *
 * <p>Owner: one walk.
 */
public final class SeenTables {
  /** The tables of 2 PiB with 64 KiB clusters; 64 MiB of memory. */
  private static final int REMEMBERED_MAX = 1 << 22;

  private static final int SLOTS_MIN = 1 << 10;

  /** Offsets; 0, where the header is, for an empty slot. At most half are full. */
  private long[] slots = new long[SLOTS_MIN];

  private int count;

  /** Whether the table at that offset, which is not 0, is not known to have been seen before. */
  public boolean add(long offset) {
    int at = slotOf(offset);
    if (slots[at] != 0) {
      return false;
    }
    if (count == REMEMBERED_MAX) {
      return true;
    }
    slots[at] = offset;
    count++;
    if (count > slots.length / 2) {
      grow();
    }
    return true;
  }

  private int slotOf(long offset) {
    int mask = slots.length - 1;
    int at = (int) ((offset * 0x9e37_79b9_7f4a_7c15L) >>> 32) & mask;
    while (slots[at] != 0 && slots[at] != offset) {
      at = (at + 1) & mask;
    }
    return at;
  }

  private void grow() {
    long[] old = slots;
    slots = new long[2 * old.length];
    for (long offset : old) {
      if (offset != 0) {
        slots[slotOf(offset)] = offset;
      }
    }
  }
}
