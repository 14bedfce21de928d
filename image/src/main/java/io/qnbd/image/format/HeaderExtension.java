package io.qnbd.image.format;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * One header extension (qcow2 specification, "Header extensions"); unknown ones are kept as found.
 *
 * <pre>
 * 0  4 type
 * 4  4 length of the data
 * 8    data, then padding to a multiple of 8
 * </pre>
 *
 * @param type one of the constants, or unknown
 * @param data read-only; a private copy
 */
public record HeaderExtension(int type, ByteBuffer data) {
  /** Ends the extension area. */
  public static final int END = 0;

  public static final int BACKING_FORMAT = 0xe2792aca;
  public static final int FEATURE_NAMES = 0x6803f857;
  public static final int BITMAPS = 0x23852875;
  public static final int ENCRYPTION_HEADER = 0x0537be77;
  public static final int DATA_FILE = 0x44415441;

  /** Type and length. */
  static final int PREFIX_BYTES = 8;

  public HeaderExtension {
    byte[] copy = new byte[data.remaining()];
    data.get(data.position(), copy);
    data = ByteBuffer.wrap(copy).asReadOnlyBuffer();
  }

  /** An extension whose data is a string. */
  public static HeaderExtension ofText(int type, String text) {
    return new HeaderExtension(type, ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8)));
  }

  /** The data; the view's position is the caller's own. */
  @Override
  public ByteBuffer data() {
    return data.duplicate();
  }

  /** The data as a string, for showing and for comparing with known words. */
  public String text() {
    return Names.printable(data());
  }

  /** Whether the specification names this type and so allows it only once. */
  boolean known() {
    return switch (type) {
      case BACKING_FORMAT, FEATURE_NAMES, BITMAPS, ENCRYPTION_HEADER, DATA_FILE -> true;
      default -> false;
    };
  }

  /** Bytes on disk with prefix, without padding. */
  int bytes() {
    return PREFIX_BYTES + data.remaining();
  }

  /** Bytes on disk with prefix and padding. */
  int paddedBytes() {
    return PREFIX_BYTES + ((data.remaining() + 7) & ~7);
  }
}
