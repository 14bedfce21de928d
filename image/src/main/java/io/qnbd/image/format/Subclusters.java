package io.qnbd.image.format;

/**
 * The second half of an extended L2 entry: 64 bits, big-endian, two for each of the 32 subclusters
 * of equal size that the entry's cluster has (qcow2 specification, "Extended L2 Entries").
 *
 * <pre>
 * bits  0-31  the subcluster is allocated: its bytes are at its place in the host cluster
 * bits 32-63  the subcluster reads as zeroes, whether there is a host cluster or not
 * neither     its bytes are in the backing file, if there is one
 * both        corrupt; so is "allocated" without a host cluster
 * </pre>
 *
 * Of a compressed cluster all bits are zero. The first half is an {@link L2Entry} whose zero flag
 * is reserved. The two halves lie in one sector, so that a power cut keeps or loses both.
 *
 * <p>Words stay {@code long}s, and the halves of a word are masks: bit x for subcluster x.
 */
public final class Subclusters {
  public static final int COUNT = 32;

  /** The mask of all subclusters. */
  public static final int ALL = -1;

  private Subclusters() {}

  public static long of(int allocated, int zero) {
    return (long) zero << COUNT | Integer.toUnsignedLong(allocated);
  }

  /** Mask of the subclusters that are allocated. */
  public static int allocated(long word) {
    return (int) word;
  }

  /** Mask of the subclusters that are marked as reading as zeroes. */
  public static int zero(long word) {
    return (int) (word >>> COUNT);
  }

  /** The mask of {@code [first, end)}. */
  public static int mask(int first, int end) {
    return (int) ((1L << end) - (1L << first));
  }

  /** How many subclusters in a row, from {@code first} on, are in the mask. */
  public static int run(int mask, int first) {
    return Math.min(COUNT - first, Integer.numberOfTrailingZeros(~(mask >> first)));
  }

  /** Whether the two halves of an entry agree; reserved bits of the first are not looked at. */
  public static boolean consistent(long entry, long word) {
    if (L2Entry.compressed(entry)) {
      return word == 0;
    }
    return (allocated(word) & zero(word)) == 0
        && (allocated(word) == 0 || L2Entry.hostOffset(entry) != 0);
  }
}
