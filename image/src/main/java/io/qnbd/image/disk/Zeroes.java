package io.qnbd.image.disk;

import java.nio.ByteBuffer;

/** Zero bytes: writing them, filling with them, recognising them. */
final class Zeroes {
  private static final ByteBuffer BLOCK = ByteBuffer.allocateDirect(1 << 20).asReadOnlyBuffer();

  private Zeroes() {}

  /** The most that one call of {@link #buffer} gives. */
  static int blockBytes() {
    return BLOCK.capacity();
  }

  /** A buffer of {@code bytes} zeroes, at most {@link #blockBytes}; read-only. */
  static ByteBuffer buffer(int bytes) {
    return BLOCK.slice(0, bytes);
  }

  /** Puts {@code bytes} zeroes. */
  static void fill(ByteBuffer target, long bytes) {
    for (long left = bytes; left > 0; ) {
      int piece = (int) Math.min(left, BLOCK.capacity());
      target.put(BLOCK.slice(0, piece));
      left -= piece;
    }
  }

  /** Whether {@code [from, to)} of the buffer is all zeroes. */
  static boolean all(ByteBuffer buffer, int from, int to) {
    for (int at = from; at < to; ) {
      int piece = Math.min(to - at, BLOCK.capacity());
      if (!buffer.slice(at, piece).equals(BLOCK.slice(0, piece))) {
        return false;
      }
      at += piece;
    }
    return true;
  }
}
