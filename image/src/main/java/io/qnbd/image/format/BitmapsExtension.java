package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import java.nio.ByteBuffer;

/**
 * Where the directory of persistent bitmaps is (qcow2 specification, "Bitmaps extension").
 *
 * <pre>
 *  0  4 bitmaps          8  8 bytes of the directory
 *  4  4 reserved, 0     16  8 offset of the directory
 * </pre>
 *
 * <p>It means something only while the header's autoclear bit {@link FeatureBits#BITMAPS} is set.
 *
 * @param bitmaps 1 to {@link #BITMAPS_MAX}
 * @param directoryBytes at most {@link #DIRECTORY_BYTES_MAX}
 * @param directoryOffset a multiple of the cluster size; all of the directory is inside the file
 */
public record BitmapsExtension(int bitmaps, int directoryBytes, long directoryOffset) {
  public static final int BYTES = 24;

  /** QEMU's limit. */
  public static final int BITMAPS_MAX = 65535;

  /** QEMU's limit. */
  public static final int DIRECTORY_BYTES_MAX = 64 << 20;

  public static final int RESERVED_AT = 4;
  public static final int DIRECTORY_BYTES_AT = 8;
  public static final int DIRECTORY_OFFSET_AT = 16;

  /** The extension's data. */
  public ByteBuffer encode() {
    return ByteBuffer.allocate(BYTES)
        .putInt(bitmaps)
        .putInt(0)
        .putLong(directoryBytes)
        .putLong(directoryOffset)
        .flip();
  }

  /** Reads the extension's data. */
  public static BitmapsExtension parse(
      String fileName, ByteBuffer data, int clusterBytes, long fileBytes)
      throws CorruptImageException {
    ByteBuffer in = HeaderParser.bigEndian(data);
    if (in.remaining() != BYTES) {
      throw new CorruptImageException(
          "%s: the bitmaps extension has %d bytes, expected %d"
              .formatted(fileName, in.remaining(), BYTES));
    }
    long bitmaps = Integer.toUnsignedLong(in.getInt(0));
    if (bitmaps == 0 || bitmaps > BITMAPS_MAX || in.getInt(RESERVED_AT) != 0) {
      throw new CorruptImageException(
          "%s: the bitmaps extension names %d bitmaps, expected 1 to %d, and then zeroes"
              .formatted(fileName, bitmaps, BITMAPS_MAX));
    }
    long bytes = in.getLong(DIRECTORY_BYTES_AT);
    if (bytes < 0 || bytes > DIRECTORY_BYTES_MAX) {
      throw new CorruptImageException(
          "%s: the bitmap directory has %s bytes, expected at most %d"
              .formatted(fileName, Long.toUnsignedString(bytes), DIRECTORY_BYTES_MAX));
    }
    long offset = in.getLong(DIRECTORY_OFFSET_AT);
    if (offset <= 0 || offset % clusterBytes != 0 || offset > fileBytes - bytes) {
      throw new CorruptImageException(
          "%s: the bitmap directory of %d bytes is at 0x%x, expected a cluster inside the file"
              .formatted(fileName, bytes, offset));
    }
    return new BitmapsExtension((int) bitmaps, (int) bytes, offset);
  }
}
