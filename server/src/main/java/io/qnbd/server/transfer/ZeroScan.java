package io.qnbd.server.transfer;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;

/** Finds zeroes in buffers, many bytes at a time. */
final class ZeroScan {
  private static final int ZEROES_BYTES = 64 << 10;
  private static final MemorySegment ZEROES =
      MemorySegment.ofBuffer(ByteBuffer.allocateDirect(ZEROES_BYTES)).asReadOnly();

  private ZeroScan() {}

  /** Whether {@code [from, from + bytes)} of the buffer is all zeroes. */
  static boolean isZero(MemorySegment buffer, long from, long bytes) {
    for (long done = 0; done < bytes; ) {
      long piece = Math.min(bytes - done, ZEROES_BYTES);
      long at = from + done;
      if (MemorySegment.mismatch(buffer, at, at + piece, ZEROES, 0, piece) >= 0) {
        return false;
      }
      done += piece;
    }
    return true;
  }

  /** The place of the first byte that is not zero, or -1. */
  static long firstNonZero(MemorySegment buffer, long bytes) {
    for (long done = 0; done < bytes; ) {
      long piece = Math.min(bytes - done, ZEROES_BYTES);
      long found = MemorySegment.mismatch(buffer, done, done + piece, ZEROES, 0, piece);
      if (found >= 0) {
        return done + found;
      }
      done += piece;
    }
    return -1;
  }
}
