package io.qnbd.protocol;

/** Every limit on what a client may send, each with its reason. */
public final class WireLimits {
  /** The longest string that the protocol allows ("Values", "strings"): names and error texts. */
  public static final int STRING_BYTES_MAX = 4096;

  /**
   * The most data of one READ or WRITE, advertised as the maximum block size. Clients that ask for
   * no block sizes send at most 32 MiB by the protocol; twice that leaves room for those that round
   * up, and two of them fit into the smallest memory budget.
   */
  public static final int PAYLOAD_BYTES_MAX = 64 << 20;

  /**
   * The most data of an option that is looked at. INFO and GO need 4096 bytes of name and two bytes
   * for each information; queries of metadata contexts are as many as fit. What is longer is
   * skipped and refused.
   */
  public static final int OPTION_BYTES_MAX = 64 << 10;

  /**
   * The most data of an option that is skipped to stay in step, a streaming skip that costs no
   * memory. QEMU draws the line here too; beyond it the connection is closed.
   */
  public static final int OPTION_SKIP_BYTES_MAX = 32 << 20;

  /**
   * The most options of one handshake. A client needs fewer than ten; one that describes each
   * export of the longest list asks once for each.
   */
  public static final int OPTIONS_MAX = 2048;

  /**
   * The most metadata contexts of one connection: base:allocation, qemu:allocation-depth and more
   * bitmaps than anyone keeps. Bounds what a BLOCK_STATUS with a payload may name, too.
   */
  public static final int CONTEXTS_MAX = 64;

  /** The most exports of one server, so that a list stays below 9 MiB even with longest names. */
  public static final int EXPORTS_MAX = 1024;

  private WireLimits() {}
}
