package io.qnbd.protocol;

/** What an export offers (NBD protocol, "Transmission flags"): 16 bits on the wire. */
public final class TransmissionFlags {
  public static final int HAS_FLAGS = 1;
  public static final int READ_ONLY = 1 << 1;
  public static final int SEND_FLUSH = 1 << 2;
  public static final int SEND_FUA = 1 << 3;
  public static final int ROTATIONAL = 1 << 4;
  public static final int SEND_TRIM = 1 << 5;
  public static final int SEND_WRITE_ZEROES = 1 << 6;

  /** Only ever set by the handshake: legal with replies in chunks alone. */
  public static final int SEND_DF = 1 << 7;

  public static final int CAN_MULTI_CONN = 1 << 8;
  public static final int SEND_CACHE = 1 << 10;
  public static final int SEND_FAST_ZERO = 1 << 11;

  /** Only ever set by the handshake: legal with extended headers alone. */
  public static final int BLOCK_STATUS_PAYLOAD = 1 << 12;

  private TransmissionFlags() {}
}
