package io.qnbd.image;

import java.io.IOException;
import java.nio.ByteBuffer;
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

  /** The size of the virtual disk in bytes. */
  long virtualBytes();

  /** Whether writes are refused. */
  boolean readOnly();

  /**
   * The granule in bytes at which trims and zeroes are cheapest and writes need no copying: the
   * cluster size of a qcow2 image, 4096 for a raw one. A power of two from 512 to 2 MiB.
   */
  int preferredBytes();

  /** Fills {@code target} from its position to its limit with the bytes at {@code offset}. */
  void read(long offset, ByteBuffer target) throws IOException;

  /** Writes what remains in {@code source} at {@code offset}. */
  void write(long offset, ByteBuffer source) throws IOException;

  /** Makes {@code [offset, offset + bytes)} read as zeroes. */
  void writeZeroes(long offset, long bytes, ZeroMode mode) throws IOException;

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
   * Commits, gives back what was reserved, unlocks and closes the file, also when committing fails.
   * The caller makes sure that no other call is in progress. Closing twice is harmless.
   */
  @Override
  void close() throws IOException;
}
