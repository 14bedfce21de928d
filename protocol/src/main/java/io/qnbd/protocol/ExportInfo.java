package io.qnbd.protocol;

/**
 * What a client may know of an export.
 *
 * @param name its canonical name, at most {@link WireLimits#STRING_BYTES_MAX} bytes of UTF-8
 * @param description a sentence for people, or empty
 * @param bytes size of the disk
 * @param transmissionFlags see {@link TransmissionFlags}; without SEND_DF, which depends on the
 *     connection
 */
public record ExportInfo(
    String name, String description, long bytes, int transmissionFlags, BlockSizes blockSizes) {

  public ExportInfo {
    WireStrings.checkOutgoing("export name", name);
    WireStrings.checkOutgoing("export description", description);
    if (bytes < 0) {
      throw new IllegalArgumentException("export size is " + bytes + ", expected 0 or more");
    }
    if ((transmissionFlags & TransmissionFlags.SEND_DF) != 0) {
      throw new IllegalArgumentException("SEND_DF is set by the handshake alone");
    }
    transmissionFlags |= TransmissionFlags.HAS_FLAGS;
  }

  public boolean readOnly() {
    return (transmissionFlags & TransmissionFlags.READ_ONLY) != 0;
  }
}
