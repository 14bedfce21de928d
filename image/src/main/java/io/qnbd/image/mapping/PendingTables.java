package io.qnbd.image.mapping;

import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.TableIo;
import java.io.IOException;
import java.util.BitSet;
import java.util.Comparator;
import java.util.List;

/**
 * Table entries on their way into the file: what one commit writes between its barrier and its last
 * sync.
 *
 * <p>The order among them does not matter, and a power cut may keep any sectors of them: every
 * entry lies in one sector, everything that it refers to was durable before or reads as it did
 * before, and an L2 table reads as the table that it replaces until its entries arrive.
 */
public final class PendingTables {
  /** Entries in a row, and where they go. */
  static final class Piece {
    private final long hostOffset;
    private final long[] entries;

    /** Takes over {@code entries}: nobody changes them any more. */
    Piece(long hostOffset, long[] entries) {
      this.hostOffset = hostOffset;
      this.entries = entries;
    }

    long hostOffset() {
      return hostOffset;
    }

    long end() {
      return hostOffset + (long) entries.length * Long.BYTES;
    }
  }

  /** Neighbouring pieces are joined up to this size. */
  private static final int WRITE_BYTES_MAX = 1 << 20;

  private final List<Piece> pieces;
  private final List<SliceCache.Slice> slices;
  private final BitSet l1Sectors;

  PendingTables(List<Piece> pieces, List<SliceCache.Slice> slices, BitSet l1Sectors) {
    this.pieces = pieces;
    this.slices = slices;
    this.l1Sectors = l1Sectors;
  }

  List<SliceCache.Slice> slices() {
    return slices;
  }

  BitSet l1Sectors() {
    return l1Sectors;
  }

  public boolean isEmpty() {
    return pieces.isEmpty();
  }

  /**
   * Writes all entries, neighbours in one write.
   *
   * @return the writes that it took
   */
  public int write(Storage file) throws IOException {
    pieces.sort(Comparator.comparingLong(Piece::hostOffset));
    int writes = 0;
    for (int from = 0; from < pieces.size(); ) {
      int to = from + 1;
      int entries = pieces.get(from).entries.length;
      while (to < pieces.size()
          && pieces.get(to).hostOffset() == pieces.get(to - 1).end()
          && (entries + pieces.get(to).entries.length) * Long.BYTES <= WRITE_BYTES_MAX) {
        entries += pieces.get(to).entries.length;
        to++;
      }
      long[] joined = new long[entries];
      int at = 0;
      for (Piece piece : pieces.subList(from, to)) {
        System.arraycopy(piece.entries, 0, joined, at, piece.entries.length);
        at += piece.entries.length;
      }
      TableIo.write(file, pieces.get(from).hostOffset(), joined, 0, entries);
      writes++;
      from = to;
    }
    return writes;
  }
}
