package io.qnbd.protocol.handshake;

/** Whether a server speaks TLS (NBD specification, "TLS support"). */
public enum TlsMode {
  /** STARTTLS is refused. */
  OFF,

  /** STARTTLS is taken; an export may insist on it. */
  OPTIONAL,

  /** Nothing is served, nor told, before TLS. */
  REQUIRED
}
