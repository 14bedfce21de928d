package io.qnbd.protocol;

/** Why an option is refused (NBD protocol, "Option reply types"). */
public enum OptionError {
  UNSUPPORTED(1),
  POLICY(2),
  INVALID(3),
  PLATFORM(4),
  TLS_REQUIRED(5),
  UNKNOWN_EXPORT(6),
  SHUTDOWN(7),
  BLOCK_SIZE_REQUIRED(8),
  TOO_BIG(9),
  EXTENDED_HEADERS_REQUIRED(10);

  private final int wireNumber;

  OptionError(int number) {
    this.wireNumber = 1 << 31 | number;
  }

  /** The number on the wire: bit 31 is set. */
  public int wireNumber() {
    return wireNumber;
  }
}
