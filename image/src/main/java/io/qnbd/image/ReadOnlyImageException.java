package io.qnbd.image;

import java.io.IOException;

/** A write to an image that was opened for reading. */
public final class ReadOnlyImageException extends IOException {
  private static final long serialVersionUID = 1;

  public ReadOnlyImageException(String message) {
    super(message);
  }
}
