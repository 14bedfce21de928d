package io.qnbd.image.format;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import org.jspecify.annotations.Nullable;

/** Strings that an image holds. They come from whoever wrote the image. */
final class Names {
  private Names() {}

  /**
   * The bytes up to the first zero as UTF-8, with everything that could drive a terminal or break a
   * log line replaced by a question mark.
   */
  static String printable(ByteBuffer bytes) {
    return printable(StandardCharsets.UTF_8.decode(upToZero(bytes)));
  }

  static String printable(CharSequence text) {
    StringBuilder shown = new StringBuilder(text.length());
    text.codePoints().forEach(c -> shown.appendCodePoint(shows(c) ? c : '?'));
    return shown.toString();
  }

  private static boolean shows(int codePoint) {
    return switch (Character.getType(codePoint)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.SURROGATE,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR,
          Character.UNASSIGNED ->
          false;
      default -> true;
    };
  }

  /** The bytes up to the first zero as UTF-8, exactly; null when they are not UTF-8. */
  static @Nullable String exact(ByteBuffer bytes) {
    try {
      CharBuffer text = StandardCharsets.UTF_8.newDecoder().decode(upToZero(bytes));
      return text.toString();
    } catch (CharacterCodingException _) {
      return null;
    }
  }

  private static ByteBuffer upToZero(ByteBuffer bytes) {
    ByteBuffer name = bytes.duplicate();
    for (int at = name.position(); at < name.limit(); at++) {
      if (name.get(at) == 0) {
        name.limit(at);
      }
    }
    return name;
  }
}
