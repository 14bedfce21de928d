package io.qnbd.protocol;

import java.util.List;

/**
 * What a client may know of an export.
 *
 * @param name its canonical name, at most {@link WireLimits#STRING_BYTES_MAX} bytes of UTF-8
 * @param description a sentence for people, or empty
 * @param bytes size of the disk
 * @param transmissionFlags see {@link TransmissionFlags}; without SEND_DF and BLOCK_STATUS_PAYLOAD,
 *     which depend on the connection
 * @param metaContexts names of the metadata contexts that may be selected, each once: {@code
 *     base:allocation}
 */
public record ExportInfo(
    String name,
    String description,
    long bytes,
    int transmissionFlags,
    BlockSizes blockSizes,
    List<String> metaContexts) {
  private static final int SET_BY_HANDSHAKE =
      TransmissionFlags.SEND_DF | TransmissionFlags.BLOCK_STATUS_PAYLOAD;

  public ExportInfo {
    WireStrings.checkOutgoing("export name", name);
    WireStrings.checkOutgoing("export description", description);
    if (bytes < 0) {
      throw new IllegalArgumentException("export size is " + bytes + ", expected 0 or more");
    }
    if ((transmissionFlags & SET_BY_HANDSHAKE) != 0) {
      throw new IllegalArgumentException(
          "SEND_DF and BLOCK_STATUS_PAYLOAD are set by the handshake alone");
    }
    int zeroFlags =
        transmissionFlags
            & (TransmissionFlags.SEND_WRITE_ZEROES | TransmissionFlags.SEND_FAST_ZERO);
    if (zeroFlags == TransmissionFlags.SEND_FAST_ZERO) {
      throw new IllegalArgumentException("SEND_FAST_ZERO is set without SEND_WRITE_ZEROES");
    }
    transmissionFlags |= TransmissionFlags.HAS_FLAGS;
    metaContexts = List.copyOf(metaContexts);
    for (String context : metaContexts) {
      WireStrings.checkOutgoing("metadata context", context);
      if (context.indexOf(':') <= 0) {
        throw new IllegalArgumentException(
            "metadata context "
                + WireStrings.quote(context)
                + " has no namespace, expected namespace:leaf");
      }
    }
    if (metaContexts.stream().distinct().count() != metaContexts.size()) {
      throw new IllegalArgumentException("a metadata context is listed twice: " + metaContexts);
    }
  }

  /** An export without metadata contexts. */
  public ExportInfo(
      String name, String description, long bytes, int transmissionFlags, BlockSizes blockSizes) {
    this(name, description, bytes, transmissionFlags, blockSizes, List.of());
  }

  public boolean readOnly() {
    return (transmissionFlags & TransmissionFlags.READ_ONLY) != 0;
  }

  /** Whether it has all of {@code flags}, see {@link TransmissionFlags}. */
  public boolean has(int flags) {
    return (transmissionFlags & flags) == flags;
  }
}
