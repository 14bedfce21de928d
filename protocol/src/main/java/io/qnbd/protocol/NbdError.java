package io.qnbd.protocol;

/** The errors of a reply (NBD protocol, "Error values"); the numbers are Linux's errno values. */
public enum NbdError {
  EPERM(1),
  EIO(5),
  ENOMEM(12),
  EINVAL(22),
  ENOSPC(28),
  EOVERFLOW(75),
  ENOTSUP(95),
  ESHUTDOWN(108);

  private final int wireNumber;

  NbdError(int wireNumber) {
    this.wireNumber = wireNumber;
  }

  /** The number on the wire. */
  public int wireNumber() {
    return wireNumber;
  }
}
