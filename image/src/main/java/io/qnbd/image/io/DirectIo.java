package io.qnbd.image.io;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Semaphore;

/**
 * Reads and writes of any alignment through a descriptor opened with O_DIRECT, which takes whole
 * blocks from aligned memory only.
 *
 * <p>Whole blocks whose memory is aligned go straight through; the rest is copied through buffers
 * of a bounded pool. A write that covers a block in part reads the block, changes it and writes it
 * back, unless the block is the file's last and the file ends inside it: writing that block whole
 * would move the file's end, for good if the power is cut before it is moved back. So such a piece
 * is written through the second, buffered descriptor; the kernel keeps the two coherent (a direct
 * access first writes back and drops the cached pages that it covers).
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>A block is read and written back only under an exclusive hold on it, and changed in any
 *       other way only under a shared one, so no write between is undone.
 *   <li>A thread takes a pooled buffer only while it waits for no hold, so the pool cannot deadlock
 *       with the holds.
 *   <li>The file's length is never more than its writers asked for.
 * </ul>
 *
 * <p>Reads take no hold: what is written back is what was there.
 *
 * <p>Owner: its {@link FileStorage}, which owns both descriptors. Thread-safe.
 */
final class DirectIo {
  /** Page size and the largest common sector: smaller blocks would share a page with the tail. */
  static final int BLOCK_BYTES_MIN = 4096;

  /** Large enough that a copied request costs few system calls. */
  static final int BOUNCE_BYTES = 256 << 10;

  /** With the size above, at most 2 MiB for each file. */
  static final int BOUNCES_MAX = 8;

  private final int directFd;
  private final int bufferedFd;
  private final int blockBytes;
  private final int memoryAlignment;
  private final RangeLock blocks = new RangeLock();
  private final Semaphore bouncesFree = new Semaphore(BOUNCES_MAX);
  private final ConcurrentLinkedQueue<ByteBuffer> bouncesMade = new ConcurrentLinkedQueue<>();

  /**
   * Takes over {@code directFd} only; where {@code stat} does not know the alignment, {@value
   * #BLOCK_BYTES_MIN} serves for both.
   */
  DirectIo(int directFd, int bufferedFd, Posix.Stat stat) {
    this.directFd = directFd;
    this.bufferedFd = bufferedFd;
    this.blockBytes = Math.max(BLOCK_BYTES_MIN, stat.directOffsetBytes());
    this.memoryAlignment =
        stat.directMemoryBytes() == 0 ? BLOCK_BYTES_MIN : stat.directMemoryBytes();
  }

  /** Reads until {@code target} is full or the file ends; returns the bytes read, or an error. */
  long read(long at, ByteBuffer target) {
    long done = 0;
    if (at % blockBytes == 0 && aligned(target) && target.remaining() >= blockBytes) {
      int limit = target.limit();
      int straight = target.remaining() - target.remaining() % blockBytes;
      target.limit(target.position() + straight);
      done = Posix.read(directFd, at, target, blockBytes);
      target.limit(limit);
      if (done < straight) {
        return done; // an error or the end of the file
      }
    }
    return target.hasRemaining() ? readCopied(at, done, target) : done;
  }

  private long readCopied(long at, long before, ByteBuffer target) {
    long done = before;
    ByteBuffer bounce = takeBounce();
    try {
      while (target.hasRemaining()) {
        long from = at + done;
        int skipped = (int) (from % blockBytes);
        int wanted = Math.min(target.remaining(), bounce.capacity() - skipped);
        int asked = roundUp(skipped + wanted);
        bounce.clear().limit(asked);
        long got = Posix.read(directFd, from - skipped, bounce, blockBytes);
        if (got < 0) {
          return got;
        }
        int useful = (int) Math.min(Math.max(0, got - skipped), wanted);
        target.put(bounce.slice(skipped, useful));
        done += useful;
        if (got < asked) {
          break;
        }
      }
      return done;
    } finally {
      giveBounce(bounce);
    }
  }

  /** Writes all that remains in {@code source}; returns 0 or an error. */
  long write(long at, ByteBuffer source) {
    if (!source.hasRemaining()) {
      return 0;
    }
    long end = at + source.remaining();
    boolean whole = at % blockBytes == 0 && end % blockBytes == 0;
    RangeLock.Hold hold = blocks.acquire(at / blockBytes, (end - 1) / blockBytes, !whole);
    try {
      long from = at;
      long result = 0;
      while (result >= 0 && source.hasRemaining()) {
        int before = source.position();
        int inBlock = (int) (from % blockBytes);
        if (inBlock != 0 || source.remaining() < blockBytes) {
          result = writePart(from, inBlock, source);
        } else {
          result = writeBlocks(from, source);
        }
        from += source.position() - before;
      }
      return result;
    } finally {
      blocks.release(hold);
    }
  }

  /** Writes up to the end of the block that {@code at} lies in. */
  private long writePart(long at, int inBlock, ByteBuffer source) {
    int bytes = Math.min(source.remaining(), blockBytes - inBlock);
    ByteBuffer part = source.slice(source.position(), bytes);
    source.position(source.position() + bytes);
    long blockAt = at - inBlock;
    long length = Posix.length(bufferedFd);
    if (length < 0) {
      return length;
    }
    if (blockAt + blockBytes > length) {
      return Posix.write(bufferedFd, at, part);
    }
    ByteBuffer bounce = takeBounce();
    try {
      bounce.clear().limit(blockBytes);
      long got = Posix.read(directFd, blockAt, bounce, blockBytes);
      if (got < 0) {
        return got;
      }
      if (got < blockBytes) {
        return Posix.write(bufferedFd, at, part); // someone else cut the file
      }
      bounce.put(inBlock, part, 0, bytes).rewind();
      return Posix.write(directFd, blockAt, bounce);
    } finally {
      giveBounce(bounce);
    }
  }

  /** Writes whole blocks: all of them if the memory is aligned, else as many as fit a copy. */
  private long writeBlocks(long at, ByteBuffer source) {
    int bytes = source.remaining() - source.remaining() % blockBytes;
    if (aligned(source)) {
      int limit = source.limit();
      source.limit(source.position() + bytes);
      long result = Posix.write(directFd, at, source);
      source.limit(limit);
      return result;
    }
    ByteBuffer bounce = takeBounce();
    try {
      int copied = Math.min(bytes, bounce.capacity());
      bounce.clear();
      bounce.put(0, source, source.position(), copied).limit(copied);
      source.position(source.position() + copied);
      return Posix.write(directFd, at, bounce);
    } finally {
      giveBounce(bounce);
    }
  }

  /** Keeps writes that read a block and write it back away from the range, until released. */
  RangeLock.Hold holdShared(long at, long bytes) {
    return blocks.acquire(at / blockBytes, (at + bytes - 1) / blockBytes, false);
  }

  /** Keeps all writes away from the block of {@code at} and all after it, until released. */
  RangeLock.Hold holdFrom(long at) {
    return blocks.acquire(at / blockBytes, Long.MAX_VALUE, true);
  }

  void release(RangeLock.Hold hold) {
    blocks.release(hold);
  }

  int close() {
    return Posix.close(directFd);
  }

  private boolean aligned(ByteBuffer buffer) {
    return buffer.isDirect() && MemorySegment.ofBuffer(buffer).address() % memoryAlignment == 0;
  }

  private int roundUp(int bytes) {
    return (bytes + blockBytes - 1) / blockBytes * blockBytes;
  }

  private ByteBuffer takeBounce() {
    bouncesFree.acquireUninterruptibly();
    ByteBuffer bounce = bouncesMade.poll();
    if (bounce != null) {
      return bounce;
    }
    int alignment = Math.max(blockBytes, memoryAlignment);
    int bytes = Math.max(BOUNCE_BYTES, blockBytes);
    return ByteBuffer.allocateDirect(bytes + alignment).alignedSlice(alignment).slice(0, bytes);
  }

  private void giveBounce(ByteBuffer bounce) {
    bouncesMade.add(bounce);
    bouncesFree.release();
  }
}
