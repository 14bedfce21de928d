package io.qnbd.protocol;

/** Flags of a request (NBD protocol, "Command flags"). */
public final class CommandFlags {
  /** The effect is durable before the reply. */
  public static final int FUA = 1;

  /** WRITE_ZEROES: the range stays allocated. */
  public static final int NO_HOLE = 1 << 1;

  /** READ with structured replies: one content chunk only. */
  public static final int DF = 1 << 2;

  /** BLOCK_STATUS: one extent only. */
  public static final int REQ_ONE = 1 << 3;

  /** WRITE_ZEROES: fail at once rather than be slower than zeroing could be. */
  public static final int FAST_ZERO = 1 << 4;

  /** Extended headers: the length is that of a payload which follows the header. */
  public static final int PAYLOAD_LEN = 1 << 5;

  private CommandFlags() {}
}
