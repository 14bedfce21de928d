package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroRangeSink;
import java.io.IOException;
import java.nio.ByteBuffer;

/** What a read does with the parts of its target that are zeroes. */
interface ZeroParts {
  /** What remains in {@code target} is zeroes; moves its position to its limit. */
  void zeroes(ByteBuffer target);

  /** Reads what remains in {@code target} from the disk below. */
  void readBelow(DiskImage below, long offset, ByteBuffer target) throws IOException;

  /** Fills them in. */
  ZeroParts FILLED =
      new ZeroParts() {
        @Override
        public void zeroes(ByteBuffer target) {
          Zeroes.fill(target, target.remaining());
        }

        @Override
        public void readBelow(DiskImage below, long offset, ByteBuffer target) throws IOException {
          below.read(offset, target);
        }
      };

  /** Leaves them out and tells them, neighbours as one. For one read, on one thread. */
  final class Told implements ZeroParts {
    private final int start;
    private final ZeroRangeSink sink;
    private int pendingAt;
    private int pendingBytes;

    Told(ByteBuffer target, ZeroRangeSink sink) {
      this.start = target.position();
      this.sink = sink;
    }

    @Override
    public void zeroes(ByteBuffer target) {
      told(target.position() - start, target.remaining());
      target.position(target.limit());
    }

    @Override
    public void readBelow(DiskImage below, long offset, ByteBuffer target) throws IOException {
      int from = target.position() - start;
      below.read(offset, target, (at, bytes) -> told(from + at, bytes));
    }

    private void told(int at, int bytes) {
      if (bytes == 0) {
        return;
      }
      if (pendingBytes == 0 || pendingAt + pendingBytes != at) {
        end();
        pendingAt = at;
      }
      pendingBytes += bytes;
    }

    /** The read is over. */
    void end() {
      if (pendingBytes > 0) {
        sink.zeroes(pendingAt, pendingBytes);
        pendingBytes = 0;
      }
    }
  }
}
