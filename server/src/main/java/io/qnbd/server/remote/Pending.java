package io.qnbd.server.remote;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;

/**
 * A request that was sent and the answer as it comes in.
 *
 * <p>Owner: the receiver of its connection until it is {@link #done}, then who waits for it.
 */
final class Pending {
  private final CountDownLatch done = new CountDownLatch(1);
  final long offset;
  final int bytes;

  /** Where a read goes: {@code bytes} from position 0 on; null for other requests. */
  final @Nullable ByteBuffer target;

  /** What is told of a status: pairs of length and flags; null for other requests. */
  final @Nullable StatusSink status;

  private long received;
  private @Nullable IOException failure;

  /** Takes one extent of a status. */
  interface StatusSink {
    void extent(long bytes, int flags) throws IOException;
  }

  Pending(long offset, int bytes, @Nullable ByteBuffer target, @Nullable StatusSink status) {
    this.offset = offset;
    this.bytes = bytes;
    this.target = target;
    this.status = status;
  }

  /** Where in the target the chunk goes; a chunk outside of what was asked for is refused. */
  ByteBuffer place(long at, long count) throws IOException {
    long from = at - offset;
    if (target == null || at < offset || count < 0 || count > bytes || from > bytes - count) {
      throw new IOException(
          "answered %d bytes at 0x%x, asked for %d at 0x%x".formatted(count, at, bytes, offset));
    }
    received += count;
    return target.slice((int) from, (int) count);
  }

  /** The first failure counts. */
  void fail(IOException cause) {
    if (failure == null) {
      failure = cause;
    }
  }

  void complete() {
    if (failure == null && target != null && received != bytes) {
      fail(new IOException("answered %d bytes of %d at 0x%x".formatted(received, bytes, offset)));
    }
    done.countDown();
  }

  void await() throws IOException {
    boolean interrupted = false;
    while (true) {
      try {
        done.await();
        break;
      } catch (InterruptedException _) {
        interrupted = true; // the buffer is the receiver's until it is done
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    if (failure != null) {
      throw new IOException(failure.getMessage(), failure);
    }
  }
}
