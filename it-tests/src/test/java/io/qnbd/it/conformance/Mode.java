package io.qnbd.it.conformance;

import java.util.Locale;

/** How a server answers requests, as agreed on in the handshake. */
enum Mode {
  SIMPLE,
  STRUCTURED,
  EXTENDED;

  /** The modes in which a reply is made of chunks. */
  static final Mode[] CHUNKED = {STRUCTURED, EXTENDED};

  boolean chunked() {
    return this != SIMPLE;
  }

  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }
}
