package io.qnbd.protocol;

import java.util.ArrayList;
import java.util.List;

/**
 * Makes of the pieces that an image tells, in order and without gaps, the extents that a reply to
 * BLOCK_STATUS may have (NBD protocol, "NBD_REPLY_TYPE_BLOCK_STATUS").
 *
 * <p>Invariants of {@link #extents}, once a piece was added:
 *
 * <ul>
 *   <li>at least one, and at most {@code countMax};
 *   <li>all but the last end inside the request;
 *   <li>with REQ_ONE exactly one, no longer than the request;
 *   <li>without extended headers none is longer than {@link #COMPACT_BYTES_MAX};
 *   <li>neighbours differ in their flags, unless the first of them is as long as it may be;
 *   <li>they say of each byte what the pieces said.
 * </ul>
 *
 * <p>Owner: the thread that answers the request; not thread-safe.
 */
public final class ExtentCollector {
  /** More in one chunk should not be sent, says the protocol. */
  public static final int EXTENTS_MAX = 1 << 20;

  /**
   * The longest extent whose length is told in 32 bits: a multiple of 64 KiB, so that what follows
   * is as aligned as the start, whatever the block size is.
   */
  public static final long COMPACT_BYTES_MAX = (1L << 32) - (1 << 16);

  /** The size of one extent on the wire with extended headers; half of that without. */
  private static final int EXTENDED_EXTENT_BYTES = 16;

  private final long bytesMax;
  private final long extentBytesMax;
  private final boolean one;
  private final int countMax;
  private final List<Extent> extents = new ArrayList<>();
  private long bytesBefore;
  private long bytes;
  private long flags;
  private boolean full;

  /**
   * @param request one that {@link RequestRules} lets pass
   * @param payloadBytesMax the most data of a chunk, see {@link BlockSizes#maximum}
   */
  public ExtentCollector(Request.BlockStatus request, ReplyMode replies, int payloadBytesMax) {
    this.one = request.requestOne();
    this.bytesMax = request.bytes();
    this.extentBytesMax = replies == ReplyMode.EXTENDED ? Long.MAX_VALUE : COMPACT_BYTES_MAX;
    // A chunk begins with 8 bytes or fewer; one extent less makes room for them.
    this.countMax =
        one ? 1 : Math.clamp(payloadBytesMax / EXTENDED_EXTENT_BYTES - 1, 1, EXTENTS_MAX);
  }

  /**
   * Adds the next piece.
   *
   * @param pieceBytes 0 or more
   * @param pieceFlags as {@link Extent#flags}
   * @return whether another piece is wanted; those after false change nothing
   */
  public boolean add(long pieceBytes, long pieceFlags) {
    if (pieceBytes < 0) {
      throw new IllegalArgumentException("a piece of " + pieceBytes + " bytes");
    }
    long left = pieceBytes;
    while (left > 0 && !full) {
      if (bytes > 0 && (flags != pieceFlags || bytes == extentBytesMax)) {
        close();
        continue;
      }
      flags = pieceFlags;
      long now = Math.min(left, extentBytesMax - bytes);
      bytes += now;
      left -= now;
      // No other extent follows the one that reaches the end of the request, or goes beyond it.
      full = bytes >= bytesMax - bytesBefore;
    }
    return !full;
  }

  /** What a reply may say of all that was added. At least one piece must have been. */
  public List<Extent> extents() {
    if (bytes > 0) {
      close();
    }
    full = true;
    return extents;
  }

  /** Ends the extent at hand, which is not empty. */
  private void close() {
    extents.add(new Extent(one ? Math.min(bytes, bytesMax) : bytes, flags));
    bytesBefore += bytes;
    bytes = 0;
    full = extents.size() >= countMax;
  }
}
