package io.qnbd.image.io;

import io.qnbd.image.ZeroMode;
import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * A host file.
 *
 * <p>Thread-safe. Offsets and lengths are bytes of the file. Nothing is durable before {@link
 * #sync} returns; until then a power cut may keep any subset of the writes, holes and length
 * changes since the last sync, each torn at 512 bytes.
 *
 * <p>Every {@link IOException} names the operation, the range and the file. A full host is reported
 * as {@link io.qnbd.image.NoSpaceException}.
 */
public interface Storage extends Closeable {

  /** The file's name, for messages. */
  String name();

  /** The file's length in bytes. */
  long length() throws IOException;

  /**
   * Reads from {@code at} until {@code target} is full or the file ends.
   *
   * @return the bytes read, less than asked only at the end of the file
   */
  int read(long at, ByteBuffer target) throws IOException;

  /**
   * Fills {@code target} if that can be done at once, from memory: never waits for the disk.
   *
   * @return false, with the position of {@code target} where it was, when it would wait, when the
   *     file ends before, and when the host can't tell; its bytes may have changed
   */
  default boolean tryRead(long at, ByteBuffer target) throws IOException {
    return false;
  }

  /** Writes all that remains in {@code source}, extending the file where needed. */
  void write(long at, ByteBuffer source) throws IOException;

  /** Makes all writes, holes and length changes that returned before this call durable. */
  void sync() throws IOException;

  /** Cuts the file, or extends it with bytes that read as zeroes. */
  void setLength(long bytes) throws IOException;

  /**
   * Makes the range, inside the file, read as zeroes and gives its space back as far as the host
   * can; where the host has no holes, zeroes are written.
   */
  void punchHole(long at, long bytes) throws IOException;

  /**
   * Takes space on the host for the range, so that writing to it later does not run out of it.
   * Bytes that are there stay; the file is extended where needed with bytes that read as zeroes.
   * Does nothing where the host has no such call.
   */
  void allocate(long at, long bytes) throws IOException;

  /** Makes the range read as zeroes and keeps, or takes, the space for it. */
  void zeroRange(long at, long bytes) throws IOException;

  /**
   * The same as {@link #punchHole} or, for space that is to be kept, {@link #zeroRange}, but only
   * where the host does it without zeroes being written.
   *
   * @return false, with nothing changed, where it can't
   */
  default boolean tryZero(long at, long bytes, ZeroMode mode) throws IOException {
    return false;
  }

  /**
   * The first byte in {@code [at, end)} for which the host may keep something; what is before it
   * reads as zeroes. {@code end} if it keeps nothing, {@code at} if it can't say.
   */
  default long nextData(long at, long end) throws IOException {
    return at;
  }

  /** The first byte in {@code [at, end)} that lies in a hole; {@code end} if none is known. */
  default long nextHole(long at, long end) throws IOException {
    return end;
  }

  /**
   * Whether the host keeps nothing for the range, so that it reads as zeroes without being read. A
   * no says nothing.
   */
  default boolean isHole(long at, long bytes) throws IOException {
    return nextData(at, at + bytes) == at + bytes;
  }

  /** Starts reading the range into the page cache. A hint. */
  void prefetch(long at, long bytes) throws IOException;
}
