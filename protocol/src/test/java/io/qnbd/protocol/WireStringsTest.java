package io.qnbd.protocol;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import org.junit.jupiter.api.Test;

final class WireStringsTest {
  @Test
  void decodesUpToTheLimit() {
    assertEquals(Optional.of("x".repeat(4096)), WireStrings.decode(ByteBuffer.wrap(filled(4096))));
    assertTrue(WireStrings.decode(ByteBuffer.wrap(filled(4097))).isEmpty());
  }

  @Test
  void refusesNulAndMalformedUtf8() {
    assertTrue(WireStrings.decode(ByteBuffer.wrap(new byte[] {'a', 0})).isEmpty());
    assertTrue(WireStrings.decode(ByteBuffer.wrap(new byte[] {(byte) 0xc3})).isEmpty());
    assertTrue(WireStrings.decode(ByteBuffer.wrap(new byte[] {(byte) 0xff})).isEmpty());
  }

  @Test
  void cutsBetweenCharacters() {
    String text = "x" + "\u20ac".repeat(2000); // three bytes each
    byte[] cut = WireStrings.encodeCut(text);
    assertEquals(4096, cut.length);
    assertEquals(text.substring(0, 1366), new String(cut, StandardCharsets.UTF_8));
    assertEquals(4095, WireStrings.encodeCut("\u20ac".repeat(2000)).length);
  }

  @Test
  void exportsNeedLegalNames() {
    BlockSizes sizes = new BlockSizes(1, 4096, 4096);
    assertThrows(
        IllegalArgumentException.class, () -> new ExportInfo("x".repeat(4097), "", 0, 0, sizes));
    assertThrows(IllegalArgumentException.class, () -> new ExportInfo("a\0b", "", 0, 0, sizes));
  }

  private static byte[] filled(int bytes) {
    return "x".repeat(bytes).getBytes(StandardCharsets.UTF_8);
  }
}
