package io.qnbd.it.conformance;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/** A message under construction, in the protocol's big-endian order. Not thread-safe. */
final class Bytes {
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();

  Bytes u16(int value) {
    return raw(ByteBuffer.allocate(2).putShort((short) value).array());
  }

  Bytes u32(long value) {
    return raw(ByteBuffer.allocate(4).putInt((int) value).array());
  }

  Bytes u64(long value) {
    return raw(ByteBuffer.allocate(8).putLong(value).array());
  }

  Bytes raw(byte... bytes) {
    out.writeBytes(bytes);
    return this;
  }

  Bytes raw(byte[] bytes, int at, int count) {
    out.write(bytes, at, count);
    return this;
  }

  /** What remains of the buffer, which is left as it was. */
  Bytes raw(ByteBuffer buffer) {
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(buffer.position(), bytes);
    return raw(bytes);
  }

  /** The text alone. */
  Bytes text(String text) {
    return raw(text.getBytes(StandardCharsets.UTF_8));
  }

  /** The text behind its length in 32 bits. */
  Bytes string(String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return u32(bytes.length).raw(bytes);
  }

  byte[] array() {
    return out.toByteArray();
  }

  /** The rest of {@code source} as a string of the protocol; fails when it cannot be one. */
  static String checkedText(ByteBuffer source, String what) {
    Check.that(source.remaining() <= Nbd.STRING_BYTES_MAX, what + " is longer than 4096 bytes");
    try {
      CharBuffer text = StandardCharsets.UTF_8.newDecoder().decode(source);
      Check.that(text.chars().noneMatch(each -> each == 0), what + " holds a NUL");
      return text.toString();
    } catch (CharacterCodingException e) {
      throw new AssertionError(what + " is not UTF-8", e);
    }
  }
}
