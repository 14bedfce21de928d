package io.qnbd.protocol;

/** How requests and replies of a connection are laid out. Each mode is agreed on by an option. */
public enum ReplyMode {
  /** Compact requests, simple replies only: what a client gets that asked for nothing. */
  SIMPLE,

  /** Compact requests; replies with data, and errors, in chunks (STRUCTURED_REPLY). */
  STRUCTURED,

  /** Requests with 64-bit lengths, all replies in chunks (EXTENDED_HEADERS). */
  EXTENDED;

  /** Whether a READ is answered in chunks, which can carry errors and holes beside the data. */
  public boolean chunks() {
    return this != SIMPLE;
  }
}
