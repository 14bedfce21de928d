package io.qnbd.server.transfer;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ProgressListener;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * Looks for the first byte in which two disks differ. A disk that is shorter than the other one is
 * taken to go on with zeroes.
 *
 * <p>Owner: the thread that calls {@link #firstDifference}.
 */
public final class DiskCompare {
  /** Two of them stay in a core's cache. */
  private static final int BUFFER_BYTES = 256 << 10;

  private static final int GRAIN_BYTES = 4096;

  private final DiskImage first;
  private final DiskImage second;
  private final int threads;

  public DiskCompare(DiskImage first, DiskImage second, int threads) {
    this.first = first;
    this.second = second;
    this.threads = threads;
  }

  /** The offset of the first byte that differs, or -1 if none does. */
  public long firstDifference(ProgressListener progress) throws IOException {
    boolean firstIsLonger = first.virtualBytes() >= second.virtualBytes();
    DiskImage longer = firstIsLonger ? first : second;
    DiskImage other = firstIsLonger ? second : first;
    Pieces.Cut cut =
        new Pieces.Cut(
            longer.virtualBytes(),
            GRAIN_BYTES,
            BUFFER_BYTES,
            extent -> extent.zero() ? Pieces.Kind.ZERO : Pieces.Kind.DATA);
    Pieces pieces = new Pieces(longer, cut, "comparing", progress);
    AtomicLong found = new AtomicLong(Long.MAX_VALUE);
    Crew.run(threads, stop -> new Member(longer, other, found).compare(pieces, stop));
    return found.get() == Long.MAX_VALUE ? -1 : found.get();
  }

  /**
   * The offset of the first byte that is allocated in one disk and not in the other, or -1.
   *
   * @param bytes of both disks that are looked at
   */
  public static long firstAllocationDifference(DiskImage first, DiskImage second, long bytes)
      throws IOException {
    AllocatedRuns of = new AllocatedRuns(first, bytes);
    AllocatedRuns in = new AllocatedRuns(second, bytes);
    for (long at = 0; at < bytes; ) {
      AllocatedRuns.Run one = of.at(at);
      AllocatedRuns.Run other = in.at(at);
      if (one.allocated() != other.allocated()) {
        return at;
      }
      at = Math.min(one.end(), other.end());
    }
    return -1;
  }

  /** One thread with its buffers. */
  private static final class Member {
    private final DiskImage longer;
    private final DiskImage other;
    private final AtomicLong found;
    private final ByteBuffer one = ByteBuffer.allocateDirect(BUFFER_BYTES);
    private final ByteBuffer two = ByteBuffer.allocateDirect(BUFFER_BYTES);
    private final MemorySegment oneMemory = MemorySegment.ofBuffer(one);
    private final MemorySegment twoMemory = MemorySegment.ofBuffer(two);

    Member(DiskImage longer, DiskImage other, AtomicLong found) {
      this.longer = longer;
      this.other = other;
      this.found = found;
    }

    /** Pieces come in ascending order, so none after a difference need be looked at. */
    void compare(Pieces pieces, Crew.Stop stop) throws IOException {
      while (!stop.stopped()) {
        Pieces.@Nullable Piece piece = pieces.next();
        if (piece == null || piece.offset() >= found.get()) {
          return;
        }
        long differs =
            piece.kind() == Pieces.Kind.ZERO
                ? firstData(other, piece.offset(), piece.bytes())
                : compareData(piece.offset(), (int) piece.bytes());
        if (differs >= 0) {
          found.accumulateAndGet(differs, Math::min);
        }
      }
    }

    private long compareData(long offset, int bytes) throws IOException {
      longer.read(offset, one.slice(0, bytes));
      int there = Math.clamp(other.virtualBytes() - offset, 0, bytes);
      if (there > 0) {
        other.read(offset, two.slice(0, there));
      }
      long differs = MemorySegment.mismatch(oneMemory, 0, there, twoMemory, 0, there);
      if (differs < 0 && there < bytes) {
        long rest = ZeroScan.firstNonZero(oneMemory.asSlice(there), bytes - (long) there);
        differs = rest < 0 ? -1 : there + rest;
      }
      return differs < 0 ? -1 : offset + differs;
    }

    /** The first byte of {@code [offset, offset + bytes)} that is not zero, or -1. */
    private long firstData(DiskImage disk, long offset, long bytes) throws IOException {
      long end = Math.min(offset + bytes, disk.virtualBytes());
      long[] at = {offset};
      while (at[0] < end && at[0] < found.get()) {
        long[] count = {0};
        disk.extents(
            at[0],
            end - at[0],
            (n, state) -> {
              if (state.zero()) {
                at[0] += n;
                return true;
              }
              count[0] = n;
              return false;
            });
        if (count[0] == 0) {
          return -1;
        }
        for (long left = count[0]; left > 0; ) {
          int piece = (int) Math.min(left, BUFFER_BYTES);
          disk.read(at[0], two.slice(0, piece));
          long differs = ZeroScan.firstNonZero(twoMemory, piece);
          if (differs >= 0) {
            return at[0] + differs;
          }
          at[0] += piece;
          left -= piece;
        }
      }
      return -1;
    }
  }
}
