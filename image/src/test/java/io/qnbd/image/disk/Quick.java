package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import java.io.IOException;
import java.nio.ByteBuffer;

/** Requests as a server makes them: at once where that can be, else in earnest. */
final class Quick {
  private Quick() {}

  /** Fills {@code target}, of any kind. */
  static void read(DiskImage image, long at, ByteBuffer target) throws IOException {
    int bytes = target.remaining();
    ByteBuffer direct = ByteBuffer.allocateDirect(bytes);
    switch (image.tryRead(at, direct)) {
      case DONE -> target.put(direct.flip());
      case ZEROES -> target.put(ByteBuffer.allocate(bytes));
      case WOULD_BLOCK -> image.read(at, target);
    }
  }

  static void write(DiskImage image, long at, ByteBuffer source) throws IOException {
    if (!image.tryWrite(at, source)) {
      image.write(at, source);
    }
  }
}
