package io.qnbd.image.format;

import java.nio.ByteBuffer;

/**
 * Where in the first cluster the bitmaps extension and its surroundings are (qcow2 specification,
 * "Header extensions"): what must be known to change that extension alone.
 *
 * @param bitmapsAt the type field of the bitmaps extension, -1 where there is none
 * @param retiredAt the type field of an extension of {@link #RETIRED}, -1 where there is none
 * @param endAt the end marker, -1 where the area's end alone ends it
 * @param bitmapsLast whether nothing but the end marker follows the bitmaps extension
 */
public record ExtensionArea(int bitmapsAt, int retiredAt, int endAt, boolean bitmapsLast) {
  /** Type and length. */
  public static final int PREFIX_BYTES = HeaderExtension.PREFIX_BYTES;

  /**
   * A type of our own, which other software ignores as it must: a bitmaps extension that was taken
   * away while others followed it, which can't be moved up in one step. Its room is used again.
   */
  public static final int RETIRED = 0x716e6264;

  /** Finds the places in a first cluster that a {@link Header} was parsed from. */
  public static ExtensionArea of(Header header, ByteBuffer firstCluster) {
    ByteBuffer in = HeaderParser.bigEndian(firstCluster);
    long backingAt = in.getLong(HeaderLayout.BACKING_OFFSET_AT);
    long areaEnd = backingAt == 0 ? header.clusterBytes() : backingAt;
    int bitmapsAt = -1;
    int retiredAt = -1;
    boolean last = false;
    int at = header.headerBytes();
    for (; at + PREFIX_BYTES <= areaEnd; ) {
      int type = in.getInt(at);
      if (type == HeaderExtension.END) {
        return new ExtensionArea(bitmapsAt, retiredAt, at, last);
      }
      int dataBytes = in.getInt(at + Integer.BYTES);
      last = type == HeaderExtension.BITMAPS;
      if (last) {
        bitmapsAt = at;
      } else if (type == RETIRED && dataBytes == BitmapsExtension.BYTES) {
        retiredAt = at;
      }
      at += PREFIX_BYTES + ((dataBytes + 7) & ~7);
    }
    return new ExtensionArea(bitmapsAt, retiredAt, -1, last);
  }
}
