package io.qnbd.image;

import java.io.IOException;

/**
 * Metadata of an image contradicts itself or the format; the message says what is wrong and where.
 */
public final class CorruptImageException extends IOException {
  private static final long serialVersionUID = 1;

  public CorruptImageException(String message) {
    super(message);
  }
}
