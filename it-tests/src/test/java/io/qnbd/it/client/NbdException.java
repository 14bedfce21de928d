package io.qnbd.it.client;

import java.io.IOException;

/** The server answered a request or an option with an error. */
public final class NbdException extends IOException {
  private final int error;

  NbdException(int error, String message) {
    super(message);
    this.error = error;
  }

  /** The number on the wire. */
  public int error() {
    return error;
  }
}
