package io.qnbd.image.disk;

import java.nio.ByteBuffer;

/**
 * Memory that a thread needs for the length of one step: a cluster being put together, or one being
 * decompressed. Two buffers a thread, made when first used.
 *
 * <p>Thread-safe: no thread sees another's buffers.
 */
final class Scratch {
  private static final int BYTES_MIN = 256 << 10;

  private final int bytes;
  private final ThreadLocal<ByteBuffer> assembled;
  private final ThreadLocal<ByteBuffer> decoded;

  Scratch(int clusterBytes) {
    this.bytes = Math.max(BYTES_MIN, clusterBytes);
    this.assembled = ThreadLocal.withInitial(() -> ByteBuffer.allocateDirect(bytes));
    this.decoded = ThreadLocal.withInitial(() -> ByteBuffer.allocateDirect(3 * clusterBytes));
  }

  /** The capacity of {@link #assembled}: a cluster at least. */
  int assembledBytes() {
    return bytes;
  }

  /** An empty buffer for what is about to be written. */
  ByteBuffer assembled() {
    return assembled.get().clear();
  }

  /** An empty buffer for a cluster and, behind it, a stream of up to two clusters. */
  ByteBuffer decoded() {
    return decoded.get().clear();
  }
}
