package io.qnbd.protocol.handshake;

import io.qnbd.protocol.ExportInfo;

/** What a catalog says of a name. */
public sealed interface Lookup {

  /** The client may use it. */
  record Found(ExportInfo export) implements Lookup {}

  /** There is none, or the client may not know of it. */
  record Unknown() implements Lookup {}

  /** The client may use it after STARTTLS. */
  record TlsRequired() implements Lookup {}

  /**
   * The client may not use it.
   *
   * @param reason one sentence for the client's log
   */
  record Refused(String reason) implements Lookup {}

  /** No export is entered any more. */
  record ShuttingDown() implements Lookup {}
}
