package io.qnbd.protocol;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CharsetEncoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.Optional;

/** Strings of the protocol: UTF-8 without NUL, at most 4096 bytes. */
public final class WireStrings {
  private static final int QUOTED_CHARS_MAX = 80;

  private WireStrings() {}

  /**
   * The string in what remains of {@code bytes}, or nothing when it is too long, holds a NUL or is
   * not UTF-8. Consumes what remains.
   */
  public static Optional<String> decode(ByteBuffer bytes) {
    if (bytes.remaining() > WireLimits.STRING_BYTES_MAX) {
      bytes.position(bytes.limit());
      return Optional.empty();
    }
    try {
      // A new decoder reports malformed input instead of replacing it.
      String text = StandardCharsets.UTF_8.newDecoder().decode(bytes).toString();
      return text.indexOf('\0') < 0 ? Optional.of(text) : Optional.empty();
    } catch (CharacterCodingException _) {
      bytes.position(bytes.limit());
      return Optional.empty();
    }
  }

  /** UTF-8 of {@code text}, cut between characters to what the protocol allows. */
  public static byte[] encodeCut(String text) {
    byte[] whole = text.getBytes(StandardCharsets.UTF_8);
    if (whole.length <= WireLimits.STRING_BYTES_MAX) {
      return whole;
    }
    CharsetEncoder encoder =
        StandardCharsets.UTF_8
            .newEncoder()
            .onMalformedInput(CodingErrorAction.REPLACE)
            .onUnmappableCharacter(CodingErrorAction.REPLACE);
    ByteBuffer cut = ByteBuffer.allocate(WireLimits.STRING_BYTES_MAX);
    encoder.encode(CharBuffer.wrap(text), cut, true);
    byte[] result = new byte[cut.position()];
    cut.flip().get(result);
    return result;
  }

  /** {@code name} for a message: in quotes, and shortened so that it cannot fill a log. */
  public static String quote(String name) {
    if (name.length() <= QUOTED_CHARS_MAX) {
      return '"' + name + '"';
    }
    return '"' + name.substring(0, QUOTED_CHARS_MAX) + "...\"";
  }

  static void checkOutgoing(String what, String text) {
    int bytes = text.getBytes(StandardCharsets.UTF_8).length;
    if (bytes > WireLimits.STRING_BYTES_MAX || text.indexOf('\0') >= 0) {
      throw new IllegalArgumentException(
          what + " has " + bytes + " bytes, expected at most 4096 and no NUL: " + quote(text));
    }
  }
}
