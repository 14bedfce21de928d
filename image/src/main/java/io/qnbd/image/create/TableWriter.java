package io.qnbd.image.create;

import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;

/** Writes a run of 64-bit entries in pieces. */
final class TableWriter {
  private static final int PIECE_BYTES = 256 << 10;

  private final Storage file;
  private final ByteBuffer piece = ByteBuffer.allocate(PIECE_BYTES);
  private long at;

  TableWriter(Storage file, long at) {
    this.file = file;
    this.at = at;
  }

  void put(long entry) throws IOException {
    piece.putLong(entry);
    if (!piece.hasRemaining()) {
      flush();
    }
  }

  void flush() throws IOException {
    piece.flip();
    int bytes = piece.remaining();
    if (bytes > 0) {
      file.write(at, piece);
    }
    at += bytes;
    piece.clear();
  }
}
