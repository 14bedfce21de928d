package io.qnbd.server.tls;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The keys of a file as GnuTLS's psktool writes it: lines {@code identity:key}, the key in
 * hexadecimal. An identity that begins with {@code #} is in hexadecimal too. Immutable.
 */
final class PskKeys {
  /** RFC 9257, section 6: less than 128 bits can be guessed. */
  private static final int KEY_BYTES_MIN = 16;

  /** The length's field on the wire has 16 bits. */
  private static final int KEY_BYTES_MAX = (1 << 16) - 1;

  private final Map<ByteBuffer, byte[]> keys;

  private PskKeys(Map<ByteBuffer, byte[]> keys) {
    this.keys = keys;
  }

  static PskKeys read(Path file) throws IOException {
    String text = PemFile.text(file);
    PemFile.warnIfReadableByOthers(file);
    Map<ByteBuffer, byte[]> keys = new HashMap<>();
    int line = 0;
    for (String entry : text.lines().toList()) {
      line++;
      if (entry.isBlank()) {
        continue;
      }
      try {
        add(keys, entry.strip());
      } catch (IllegalArgumentException e) {
        // The line itself stays out of the message: it may hold a key.
        throw new IOException("%s: line %d %s".formatted(file, line, e.getMessage()), e);
      }
    }
    if (keys.isEmpty()) {
      throw new IOException(file + ": holds no key, expected lines NAME:HEXKEY");
    }
    return new PskKeys(keys);
  }

  /** The key of an identity; it must not be changed. */
  byte @Nullable [] key(byte[] identity) {
    return keys.get(ByteBuffer.wrap(identity));
  }

  /** An identity as people write it. */
  static String name(byte[] identity) {
    String text = new String(identity, StandardCharsets.UTF_8);
    boolean readable =
        java.util.Arrays.equals(text.getBytes(StandardCharsets.UTF_8), identity)
            && text.chars().noneMatch(Character::isISOControl);
    return readable ? text : "#" + HexFormat.of().formatHex(identity);
  }

  private static void add(Map<ByteBuffer, byte[]> keys, String entry) {
    int colon = entry.lastIndexOf(':');
    if (colon <= 0) {
      throw new IllegalArgumentException("is not of the form NAME:HEXKEY");
    }
    String name = entry.substring(0, colon);
    byte[] identity =
        name.startsWith("#")
            ? bytes(name.substring(1), "name behind the #")
            : name.getBytes(StandardCharsets.ISO_8859_1);
    byte[] key = bytes(entry.substring(colon + 1), "key");
    if (key.length < KEY_BYTES_MIN || key.length > KEY_BYTES_MAX) {
      throw new IllegalArgumentException(
          "has a key of %d bytes, expected %d to %d"
              .formatted(key.length, KEY_BYTES_MIN, KEY_BYTES_MAX));
    }
    if (keys.putIfAbsent(ByteBuffer.wrap(identity), key) != null) {
      throw new IllegalArgumentException("has the name of a line before it");
    }
  }

  private static byte[] bytes(String hexadecimal, String what) {
    try {
      return HexFormat.of().parseHex(hexadecimal);
    } catch (IllegalArgumentException _) {
      throw new IllegalArgumentException("has a " + what + " that is not in hexadecimal");
    }
  }
}
