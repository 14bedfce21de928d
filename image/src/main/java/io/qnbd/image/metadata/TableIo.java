package io.qnbd.image.metadata;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;

/** Reads and writes runs of big-endian 64-bit table entries. */
public final class TableIo {
  /** Tables of up to 32 MiB are moved in pieces, so that no buffer of that size is needed. */
  private static final int PIECE_BYTES = 256 << 10;

  private TableIo() {}

  /** Reads {@code entries.length} entries from {@code at}; all of them must be in the file. */
  public static void read(Storage file, long at, long[] entries, String what) throws IOException {
    ByteBuffer piece =
        ByteBuffer.allocate((int) Math.min(PIECE_BYTES, (long) entries.length * Long.BYTES));
    for (int done = 0; done < entries.length; ) {
      int count = Math.min(piece.capacity() / Long.BYTES, entries.length - done);
      piece.clear().limit(count * Long.BYTES);
      long pieceAt = at + (long) done * Long.BYTES;
      if (file.read(pieceAt, piece) < count * Long.BYTES) {
        throw new CorruptImageException(
            String.format(
                "%s: the %s at 0x%x ends past the end of the file", file.name(), what, at));
      }
      piece.flip().asLongBuffer().get(entries, done, count);
      done += count;
    }
  }

  /** Writes {@code count} entries, starting with {@code entries[from]}, at {@code at}. */
  public static void write(Storage file, long at, long[] entries, int from, int count)
      throws IOException {
    ByteBuffer piece = ByteBuffer.allocate((int) Math.min(PIECE_BYTES, (long) count * Long.BYTES));
    for (int done = 0; done < count; ) {
      int pieceCount = Math.min(piece.capacity() / Long.BYTES, count - done);
      piece.clear().limit(pieceCount * Long.BYTES);
      piece.asLongBuffer().put(entries, from + done, pieceCount);
      file.write(at + (long) done * Long.BYTES, piece);
      done += pieceCount;
    }
  }
}
