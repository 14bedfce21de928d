package io.qnbd.image;

import java.io.IOException;

/** The host has no room left for a write; what was written before stays readable. */
public final class NoSpaceException extends IOException {
  private static final long serialVersionUID = 1;

  public NoSpaceException(String message) {
    super(message);
  }
}
