package io.qnbd.image.create;

import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;

/** Takes space on the host for bytes that nobody has written to yet and that read as zeroes. */
public final class Space {
  private static final int PIECE_BYTES = 1 << 20;

  private Space() {}

  /** Takes space for the range, which is in the file. */
  public static void take(
      Storage file, long at, long bytes, Preallocation how, ProgressListener progress)
      throws IOException {
    switch (how) {
      case OFF, METADATA -> {}
      case FALLOC -> file.allocate(at, bytes);
      case FULL -> {
        ByteBuffer zeroes = ByteBuffer.allocateDirect(PIECE_BYTES);
        for (long done = 0; done < bytes; ) {
          int piece = (int) Math.min(PIECE_BYTES, bytes - done);
          file.write(at + done, zeroes.slice(0, piece));
          done += piece;
          progress.progress("writing zeroes", done, bytes);
        }
      }
    }
  }
}
