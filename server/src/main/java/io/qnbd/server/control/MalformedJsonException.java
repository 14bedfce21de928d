package io.qnbd.server.control;

import java.io.IOException;

/** A line is not the JSON object that was expected; the message is one sentence. */
public final class MalformedJsonException extends IOException {
  private static final long serialVersionUID = 1;

  public MalformedJsonException(String message) {
    super(message);
  }
}
