package io.qnbd.server.transfer;

import io.qnbd.image.DiskImage;
import io.qnbd.image.MapExtent;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ZeroMode;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Copies a disk into another one. What the source knows to be zeroes is not read, what turns out to
 * be zeroes is not written.
 *
 * <p>Owner: the thread that calls {@link #run}.
 */
public final class DiskCopy {
  /** Stays in a core's cache between the read, the look for zeroes and the write. */
  private static final int BUFFER_BYTES = 512 << 10;

  /** Zeroes inside larger clusters are looked for, too. */
  private static final int GRAIN_BYTES_MAX = 64 << 10;

  private final DiskImage source;
  private final DiskImage target;
  private final Settings settings;

  /** Held while the target is written to, if that is to be in turn; outside of all its locks. */
  private final Lock turn = new ReentrantLock();

  /**
   * How it is copied.
   *
   * @param threads how many pieces are on their way at a time
   * @param compressedBytes the size of the target's clusters, which are compressed; 0 if not
   * @param sparseBytes the fewest zeroes in a row that are not written, a power of two; 0 writes
   *     every zero
   * @param targetIsZero whether the target reads as zeroes where nothing is written
   * @param topOnly copies only what the source itself holds, and nothing of its backing files
   * @param inTurn whether one thread writes at a time while the others read, as for a file in the
   *     page cache: the kernel lets one writer in, and those that wait keep their processors busy
   */
  public record Settings(
      int threads,
      int compressedBytes,
      int sparseBytes,
      boolean targetIsZero,
      boolean topOnly,
      boolean inTurn) {
    boolean compressed() {
      return compressedBytes > 0;
    }
  }

  public DiskCopy(DiskImage source, DiskImage target, Settings settings) {
    this.source = source;
    this.target = target;
    this.settings = settings;
  }

  /** Copies all of the source; what the target has behind it is made zeroes. */
  public void run(ProgressListener progress) throws IOException {
    int bufferBytes =
        settings.compressed()
            ? Math.max(settings.compressedBytes(), GRAIN_BYTES_MAX)
            : Math.max(BUFFER_BYTES, target.preferredBytes());
    Pieces.Cut cut = new Pieces.Cut(source.virtualBytes(), grainBytes(), bufferBytes, this::kindOf);
    Pieces pieces = new Pieces(source, cut, "copying", progress);
    Crew.run(settings.threads(), stop -> copyPieces(pieces, bufferBytes, stop));
    long rest = target.virtualBytes() - source.virtualBytes();
    if (rest > 0 && !settings.targetIsZero() && !settings.topOnly()) {
      target.writeZeroes(source.virtualBytes(), rest, ZeroMode.MAY_UNMAP);
    }
  }

  private int grainBytes() {
    return settings.compressed()
        ? settings.compressedBytes()
        : Math.max(settings.sparseBytes(), Math.min(target.preferredBytes(), GRAIN_BYTES_MAX));
  }

  private Pieces.Kind kindOf(MapExtent extent) {
    if (settings.topOnly() && extent.depth() > 0) {
      return Pieces.Kind.SKIP;
    }
    return extent.zero() ? Pieces.Kind.ZERO : Pieces.Kind.DATA;
  }

  private void copyPieces(Pieces pieces, int bufferBytes, Crew.Stop stop) throws IOException {
    ByteBuffer buffer = ByteBuffer.allocateDirect(bufferBytes + 4096).alignedSlice(4096);
    MemorySegment memory = MemorySegment.ofBuffer(buffer.slice(0, bufferBytes));
    while (!stop.stopped()) {
      Pieces.@Nullable Piece piece = pieces.next();
      if (piece == null) {
        return;
      }
      switch (piece.kind()) {
        case SKIP -> {}
        case ZERO -> zero(piece.offset(), piece.bytes());
        case DATA -> {
          ByteBuffer data = buffer.slice(0, (int) piece.bytes());
          source.read(piece.offset(), data);
          write(piece.offset(), data.flip(), memory);
        }
      }
    }
  }

  private void zero(long offset, long bytes) throws IOException {
    if (settings.sparseBytes() == 0) {
      // Space is taken: the target is to be allocated as a whole.
      target.writeZeroes(offset, bytes, ZeroMode.KEEP_ALLOCATED);
    } else if (!settings.targetIsZero()) {
      target.writeZeroes(offset, bytes, ZeroMode.MAY_UNMAP);
    }
  }

  private void write(long offset, ByteBuffer data, MemorySegment memory) throws IOException {
    if (settings.compressed()) {
      writeCompressed(offset, data, memory);
      return;
    }
    if (settings.sparseBytes() == 0) {
      write(offset, data);
      return;
    }
    int grain = grainBytes();
    int end = data.limit();
    int runStart = 0;
    boolean runZero = false;
    for (int at = 0; at < end; ) {
      int next = (int) Math.min(end, at + grain - (offset + at) % grain);
      boolean zero = ZeroScan.isZero(memory, at, next - at);
      if (at > 0 && zero != runZero) {
        writeRun(offset, data, runStart, at, runZero);
        runStart = at;
      }
      runZero = zero;
      at = next;
    }
    writeRun(offset, data, runStart, end, runZero);
  }

  private void writeRun(long offset, ByteBuffer data, int from, int to, boolean zero)
      throws IOException {
    if (zero) {
      zero(offset + from, to - from);
    } else {
      write(offset + from, data.slice(from, to - from));
    }
  }

  private void write(long offset, ByteBuffer data) throws IOException {
    if (!settings.inTurn()) {
      target.write(offset, data);
      return;
    }
    turn.lock();
    try {
      target.write(offset, data);
    } finally {
      turn.unlock();
    }
  }

  /** Cluster by cluster: the grain is the cluster, so the piece begins with one. */
  private void writeCompressed(long offset, ByteBuffer data, MemorySegment memory)
      throws IOException {
    int cluster = settings.compressedBytes();
    for (int at = 0; at < data.limit(); at += cluster) {
      int bytes = Math.min(cluster, data.limit() - at);
      if (!ZeroScan.isZero(memory, at, bytes)) {
        target.writeCompressed(offset + at, data.slice(at, bytes));
      } else {
        zero(offset + at, bytes);
      }
    }
  }
}
