package io.qnbd.image;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletionStage;
import org.jspecify.annotations.Nullable;

/**
 * A virtual disk that is open.
 *
 * <p>Offsets and lengths are bytes of the virtual disk. A range must lie inside {@code [0,
 * virtualBytes())}; a range that does not is a bug of the caller and is answered with {@link
 * IndexOutOfBoundsException}. Any alignment is served. A range of length 0 does nothing.
 *
 * <p>Thread-safe: every method but {@link #close} may be called from any thread at any time. All of
 * them may block on the file or on another request to the same range, so none may be called from a
 * thread that must not wait; {@link #commit} alone never waits. Two requests that overlap in range
 * and in time are applied in some order; each 512-byte sector ends as one of them left it.
 *
 * <p>Durability: a change is durable when a commit that was asked for after the change returned has
 * completed. Whatever the cache mode, the caller decides when to ask: in {@link
 * CacheMode#WRITETHROUGH} after every change.
 *
 * <p>Errors: {@link NoSpaceException} when the host is full (everything written before stays
 * readable), {@link CorruptImageException} when metadata turns out to be damaged, {@link
 * ReadOnlyImageException} when the image was opened for reading, any other {@link IOException} when
 * the host's file failed. After a failed sync every later write and commit fails until the image is
 * opened again, because what the page cache holds is no longer known.
 */
public interface DiskImage extends AutoCloseable {

  /** The size of the virtual disk in bytes. It grows with {@link #resize} and never shrinks. */
  long virtualBytes();

  /** Whether writes are refused. */
  boolean readOnly();

  /**
   * The granule in bytes at which trims and zeroes are cheapest and writes need no copying: the
   * cluster size of a qcow2 image, or that of its subclusters, 4096 for a raw one. A power of two
   * from 512 to 2 MiB.
   */
  int preferredBytes();

  /**
   * The cluster size of a qcow2 image, which is what {@link #writeCompressed} takes at a time; with
   * subclusters it is a multiple of {@link #preferredBytes}, else the same.
   */
  default int clusterBytes() {
    return preferredBytes();
  }

  /** Fills {@code target} from its position to its limit with the bytes at {@code offset}. */
  void read(long offset, ByteBuffer target) throws IOException;

  /**
   * Like {@link #read(long, ByteBuffer)}, but what is known to be zeroes without reading any data
   * is told to {@code zeroes} and left as it is in {@code target}, whose position ends at its limit
   * all the same.
   *
   * <p>The ranges are told in ascending order on the calling thread, never two in a row that could
   * have been one. How fine they are is up to the image: a small one may be filled in instead. When
   * the read fails, those told before say nothing.
   */
  void read(long offset, ByteBuffer target, ZeroRangeSink zeroes) throws IOException;

  /** What became of a {@link #tryRead}. */
  enum Attempt {
    /** The target is filled. */
    DONE,
    /** The whole range reads as zeroes; the target is as it was. */
    ZEROES,
    /** It would have to wait, or is better done by a thread that may; see there. */
    WOULD_BLOCK
  }

  /**
   * Reads like {@link #read(long, ByteBuffer)} if that can be done without waiting for a lock, a
   * table, another file or the disk. May be called from a thread that must not wait.
   *
   * <p>What is in the way may be anything, damage included: the caller then reads in earnest.
   *
   * @param target a direct buffer; its position moves only if it was filled, but its bytes may have
   *     changed in any case
   */
  default Attempt tryRead(long offset, ByteBuffer target) throws IOException {
    return Attempt.WOULD_BLOCK;
  }

  /**
   * Writes like {@link #write} if the range's clusters are there already and nothing is in the way.
   * Waits for nothing that is qnbd's own; the host may still take its time for the bytes, as it
   * does when too many of them wait for the disk: Linux can't be asked beforehand.
   *
   * @return false, with nothing changed and {@code source} as it was, where it did not
   */
  default boolean tryWrite(long offset, ByteBuffer source) throws IOException {
    return false;
  }

  /**
   * Tells what {@code [offset, offset + bytes)} is made of, in ascending pieces without gaps from
   * the first byte to the last, unless {@code sink} wants no more of them. It is called on the
   * calling thread and may ask the image for other things. Reads tables, never data.
   *
   * <p>A piece says what was so at some moment during the call, so a range whose write returned
   * before the call is not a hole and not known as zeroes unless it was zeroed or trimmed since.
   * Two pieces in a row may be of different moments, and may be in the same state.
   */
  void extents(long offset, long bytes, ExtentSink sink) throws IOException;

  /**
   * Tells where {@code [offset, offset + bytes)} is, as {@link #extents} does, but with the place
   * in the file of the image that answers, where the format knows it.
   */
  default void map(long offset, long bytes, MapSink sink) throws IOException {
    extents(
        offset,
        bytes,
        (count, state) ->
            sink.extent(
                count,
                new MapExtent(
                    Math.max(0, state.depth() - 1),
                    state.depth() > 0,
                    state.zero(),
                    !state.zero(),
                    false,
                    MapExtent.NOWHERE)));
  }

  /** Writes what remains in {@code source} at {@code offset}. */
  void write(long offset, ByteBuffer source) throws IOException;

  /**
   * Writes one cluster in the format's compressed form, or as zeroes if that is what it holds, or
   * plain if it does not shrink. Meant for a disk that is being filled: a guest that writes to the
   * cluster later makes it a plain one. The work is done on the calling thread, so several threads
   * compress at a time.
   *
   * @param offset a multiple of {@link #clusterBytes}
   * @param cluster that many bytes, or as many as the disk still has there
   * @throws UnsupportedImageException when the format has no compressed clusters
   */
  default void writeCompressed(long offset, ByteBuffer cluster) throws IOException {
    throw new UnsupportedImageException("this format has no compressed clusters");
  }

  /** Makes {@code [offset, offset + bytes)} read as zeroes. */
  void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException;

  /**
   * The same as {@link #writeZeroes}, but only where no zeroes have to be written for it: where a
   * change of the format's tables or of the host's file system does it, or nothing needs to be
   * done.
   *
   * @return false, with nothing changed, if zeroes would have to be written for any of the range
   */
  boolean tryFastZeroes(long offset, long bytes, ZeroMode mode) throws IOException;

  /**
   * Says that the contents of {@code [offset, offset + bytes)} are no longer needed. A hint: what
   * covers a whole cluster is given back and reads as zeroes afterwards (where the format can say
   * so over a backing file), the rest is left as it is.
   */
  void trim(long offset, long bytes) throws IOException;

  /** Starts reading {@code [offset, offset + bytes)} into the host's cache, as far as it can. */
  void prefetch(long offset, long bytes) throws IOException;

  /**
   * Makes durable every change that returned before this call. Never blocks: the stage is completed
   * by the image's committer thread, exceptionally with an {@link IOException} when the host's file
   * failed. Any number of callers share one commit.
   */
  CompletionStage<@Nullable Void> commit();

  /** Commits and waits for it. */
  void flush() throws IOException;

  /** What the image did so far. Counters of a moment: they may be one request apart. */
  ImageStats stats();

  /**
   * The image's internal snapshots.
   *
   * @throws UnsupportedImageException when the format has none
   */
  Snapshots snapshots() throws UnsupportedImageException;

  /**
   * Grows the disk while it is in use. What is added reads as zeroes, also where a backing file is
   * longer than the disk was. Durable when this returns; a power cut before leaves the old size or
   * the new one. Requests go on meanwhile, but for those to the disk's last bytes; {@link
   * #virtualBytes} answers the new size once this has returned, and not before it is durable. The
   * internal snapshots keep the sizes that they were taken with.
   *
   * <p>Waits for a change of the snapshots that is under way. Growing to the present size does
   * nothing.
   *
   * @param bytes the new size, a multiple of 512
   * @throws ReadOnlyImageException when the image was opened for reading
   * @throws IOException when the size is smaller than the present one, no multiple of 512 or more
   *     than the format can hold, or when the host's file failed; the disk then keeps its size
   */
  void resize(long bytes) throws IOException;

  /**
   * Gives space that the image does not use back to the host and moves what stands at the end of
   * its file forward, so that the file becomes shorter, while the disk is in use. A power cut in
   * the middle loses nothing. Waits for a change of the snapshots or of the size that is under way.
   *
   * @param progress called on this thread
   * @throws UnsupportedImageException when the format has nothing that could be moved
   */
  default Compaction compact(ProgressListener progress) throws IOException {
    throw new UnsupportedImageException(
        "a raw image is as long as its disk: there is nothing to compact");
  }

  /**
   * The image's persistent dirty bitmaps.
   *
   * @throws UnsupportedImageException when the format has none, or when this is an internal
   *     snapshot, which they do not describe
   */
  default Bitmaps bitmaps() throws UnsupportedImageException {
    throw new UnsupportedImageException("the image has no dirty bitmaps");
  }

  /** Those {@link #bitmaps} that can be believed; empty where there are none. */
  default List<BitmapInfo> consistentBitmaps() {
    return List.of();
  }

  /**
   * Tells what a bitmap says of {@code [offset, offset + bytes)}: pieces in ascending order without
   * gaps, each as long as it can be. Stops when the sink says so.
   *
   * <p>Of an enabled bitmap a piece says what was so at some moment during the call: a change that
   * had returned before is in it, one that goes on meanwhile may be.
   *
   * @param bitmap the name of one of {@link #consistentBitmaps}
   * @throws UnsupportedImageException when there is no bitmap of that name
   */
  default void dirtyExtents(String bitmap, long offset, long bytes, DirtySink sink)
      throws IOException {
    throw new UnsupportedImageException("there is no dirty bitmap named " + bitmap);
  }

  /**
   * Commits, gives back what was reserved, unlocks and closes the file, also when committing fails.
   * The caller makes sure that no other call is in progress. Closing twice is harmless.
   */
  @Override
  void close() throws IOException;
}
