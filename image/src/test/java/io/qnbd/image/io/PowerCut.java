package io.qnbd.image.io;

import java.io.IOException;

/** Every operation of a {@link CrashStorage} ends so from the moment its power is cut. */
public final class PowerCut extends IOException {
  private static final long serialVersionUID = 1;

  PowerCut(String message) {
    super(message);
  }
}
