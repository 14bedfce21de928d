package io.qnbd.server.transfer;

import io.qnbd.image.DiskImage;
import io.qnbd.image.MapExtent;
import io.qnbd.image.ProgressListener;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * Cuts a disk into pieces of one kind each and hands them out in ascending order, without gaps. A
 * piece begins and ends at a multiple of the grain, or with the disk: a grain that is data in part
 * is data. Data comes in pieces that fit a buffer, the rest in pieces of any length.
 *
 * <p>Thread-safe: its lock is held while the disk is asked where its bytes are.
 */
final class Pieces {
  /** So much is asked about at a time. */
  private static final long WINDOW_BYTES = 1L << 30;

  /** A disk may be made of tiny extents: about so many are taken in at a time. */
  private static final int WINDOW_PIECES = 4096;

  /** What is to be done with a piece. */
  enum Kind {
    /** It is read. */
    DATA,
    /** It is known to be zeroes. */
    ZERO,
    /** It is left out. */
    SKIP
  }

  /** A range of the disk. */
  record Piece(long offset, long bytes, Kind kind) {}

  /**
   * How the disk is cut.
   *
   * @param end where the last piece ends
   * @param grainBytes a power of two
   * @param pieceBytes the most data in one piece, a multiple of the grain
   */
  record Cut(long end, int grainBytes, int pieceBytes, Function<MapExtent, Kind> kindOf) {}

  private final DiskImage disk;
  private final Cut cut;
  private final String what;
  private final ProgressListener progress;
  private final ReentrantLock lock = new ReentrantLock();
  private final ArrayDeque<Piece> queue = new ArrayDeque<>();
  private long askedTo;

  /** Up to here, at most {@link #askedTo}, pieces are queued. */
  private long cutTo;

  Pieces(DiskImage disk, Cut cut, String what, ProgressListener progress) {
    this.disk = disk;
    this.cut = cut;
    this.what = what;
    this.progress = progress;
  }

  /** The next piece, or null if there is none left. */
  @Nullable Piece next() throws IOException {
    lock.lock();
    try {
      while (queue.isEmpty() && askedTo < cut.end()) {
        ask();
      }
      Piece run = queue.poll();
      if (run == null) {
        return null;
      }
      Piece piece = fit(run);
      progress.progress(what, piece.offset() + piece.bytes(), cut.end());
      return piece;
    } finally {
      lock.unlock();
    }
  }

  private void ask() throws IOException {
    long before = askedTo;
    disk.map(
        askedTo,
        Math.min(WINDOW_BYTES, cut.end() - askedTo),
        (bytes, extent) -> {
          add(askedTo, askedTo + bytes, cut.kindOf().apply(extent));
          askedTo += bytes;
          return queue.size() < WINDOW_PIECES;
        });
    if (askedTo == before) {
      throw new IOException("nothing is said of the disk from 0x%x on".formatted(before));
    }
    // A grain of which a part is still to be asked about waits.
    addData(askedTo == cut.end() ? cut.end() : roundDown(askedTo));
  }

  /** Queues what is not data where it covers whole grains; what it leaves open becomes data. */
  private void add(long from, long to, Kind kind) {
    if (kind == Kind.DATA) {
      return;
    }
    long first = Math.max(cutTo, roundDown(from + cut.grainBytes() - 1));
    long last = to == cut.end() ? to : roundDown(to);
    if (first < last) {
      addData(first);
      queue.add(new Piece(first, last - first, kind));
      cutTo = last;
    }
  }

  private void addData(long to) {
    if (cutTo < to) {
      queue.add(new Piece(cutTo, to - cutTo, Kind.DATA));
      cutTo = to;
    }
  }

  private long roundDown(long offset) {
    return offset & -cut.grainBytes();
  }

  /** Takes from a run as much as fits, and puts the rest back at the front. */
  private Piece fit(Piece run) {
    long most =
        run.kind() == Kind.DATA ? cut.pieceBytes() - run.offset() % cut.pieceBytes() : run.bytes();
    if (run.bytes() <= most) {
      return run;
    }
    queue.addFirst(new Piece(run.offset() + most, run.bytes() - most, run.kind()));
    return new Piece(run.offset(), most, run.kind());
  }
}
