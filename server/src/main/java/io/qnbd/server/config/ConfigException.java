package io.qnbd.server.config;

import java.io.IOException;

/** A setting that cannot be used; the message is one sentence that says where it stands. */
public final class ConfigException extends IOException {
  private static final long serialVersionUID = 1;

  public ConfigException(String message) {
    super(message);
  }
}
