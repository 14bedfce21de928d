package io.qnbd.server.export;

import io.qnbd.image.NoSpaceException;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.protocol.NbdError;
import java.io.IOException;

/** The one table from what an image throws to what a client is told. */
public final class ErrorMapping {
  private ErrorMapping() {}

  public static NbdError errorOf(Throwable thrown) {
    return switch (thrown) {
      case NoSpaceException _ -> NbdError.ENOSPC;
      case ReadOnlyImageException _ -> NbdError.EPERM;
      case UnsupportedImageException _ -> NbdError.EINVAL; // a bitmap that was removed meanwhile
      // ENOMEM is for clients that can wait; none can, so running out of memory is EIO like a bug.
      default -> NbdError.EIO;
    };
  }

  /** The text that goes with it: an image's own sentence, and nothing of our insides. */
  public static String textOf(Throwable thrown) {
    String message = thrown.getMessage();
    return thrown instanceof IOException && message != null
        ? message
        : "the server failed; its log says more";
  }
}
