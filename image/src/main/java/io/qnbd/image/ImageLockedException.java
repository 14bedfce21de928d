package io.qnbd.image;

import java.io.IOException;

/** Another process has the image open in a way that excludes this use. */
public final class ImageLockedException extends IOException {
  private static final long serialVersionUID = 1;

  public ImageLockedException(String message) {
    super(message);
  }
}
