package io.qnbd.server.control;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/**
 * Cuts a stream into lines of bounded length. What is longer is read to its end and dropped, so
 * that the line after it is understood again.
 *
 * <p>Owner: the thread of one connection.
 */
final class LineReader {
  private static final int BUFFER_BYTES = 8192;

  private final InputStream in;
  private final int lineBytesMax;
  private final byte[] buffer = new byte[BUFFER_BYTES];
  private int position;
  private int limit;

  LineReader(InputStream in, int lineBytesMax) {
    this.in = in;
    this.lineBytesMax = lineBytesMax;
  }

  /** What the stream holds next. */
  sealed interface Next {
    /** A line without its end. Nobody else holds the array. */
    final class Line implements Next {
      final byte[] bytes;

      Line(byte[] bytes) {
        this.bytes = bytes;
      }
    }

    record TooLong() implements Next {}

    /** The stream is over; a last line without its end is dropped. */
    record End() implements Next {}
  }

  /** Blocks until a line, or the end, has come. */
  Next next() throws IOException {
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    boolean tooLong = false;
    while (true) {
      if (position == limit) {
        position = 0;
        limit = Math.max(0, in.read(buffer));
        if (limit == 0) {
          return new Next.End();
        }
      }
      int end = position;
      while (end < limit && buffer[end] != '\n') {
        end++;
      }
      tooLong |= line.size() + (end - position) > lineBytesMax;
      if (!tooLong) {
        line.write(buffer, position, end - position);
      }
      boolean ended = end < limit;
      position = ended ? end + 1 : end;
      if (ended) {
        return tooLong ? new Next.TooLong() : new Next.Line(line.toByteArray());
      }
    }
  }
}
