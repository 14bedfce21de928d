package io.qnbd.image;

import java.io.IOException;

/** An image uses something that can't be served safely; the message names it. */
public final class UnsupportedImageException extends IOException {
  private static final long serialVersionUID = 1;

  public UnsupportedImageException(String message) {
    super(message);
  }
}
