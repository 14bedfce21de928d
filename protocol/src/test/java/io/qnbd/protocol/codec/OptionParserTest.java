package io.qnbd.protocol.codec;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class OptionParserTest {
  private static byte[] go(int nameBytes, String name, int count, int... kinds) {
    byte[] encoded = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(6 + encoded.length + 2 * kinds.length);
    data.putInt(nameBytes).put(encoded).putShort((short) count);
    for (int kind : kinds) {
      data.putShort((short) kind);
    }
    return data.array();
  }

  private static OptionRequest parseGo(byte[] data) {
    return OptionParser.parse(OptionType.GO, ByteBuffer.wrap(data));
  }

  @Test
  void readsNameAndKinds() {
    assertEquals(
        new OptionRequest.Details(true, "disk", Set.of(1, 3, 65535)),
        parseGo(go(4, "disk", 4, 1, 3, 3, 65535)));
    assertEquals(new OptionRequest.Details(true, "", Set.of()), parseGo(go(0, "", 0)));
  }

  @Test
  void refusesEveryLyingLength() {
    assertInvalid(go(5, "disk", 1, 3));
    assertInvalid(go(3, "disk", 1, 3));
    assertInvalid(go(-1, "disk", 1, 3));
    assertInvalid(go(Integer.MIN_VALUE, "disk", 1, 3));
    assertInvalid(go(4, "disk", 0, 3));
    assertInvalid(go(4, "disk", 2, 3));
    assertInvalid(go(4, "disk", 0xffff, 3));
    assertInvalid(Arrays.copyOf(go(4, "disk", 1, 3), 13));
    byte[] whole = go(4, "disk", 1, 3);
    for (int bytes = 0; bytes < whole.length; bytes++) {
      assertInvalid(Arrays.copyOf(whole, bytes));
    }
  }

  private static void assertInvalid(byte[] data) {
    assertInstanceOf(OptionRequest.Invalid.class, parseGo(data));
  }

  @Test
  void looksAtNoDataOfOptionsItDoesNotKnow() {
    assertFalse(OptionParser.reads(OptionType.ABORT), "its data is ignored");
    assertFalse(OptionParser.reads(4));
    assertEquals(
        new OptionRequest.Unknown(4), OptionParser.parse(4, ByteBuffer.wrap(new byte[100])));
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4})
  void survivesRandomData(long seed) {
    Random random = new Random(seed);
    for (int i = 0; i < 20_000; i++) {
      byte[] data = new byte[random.nextInt(24)];
      random.nextBytes(data);
      if (random.nextBoolean() && data.length > 4) {
        Arrays.fill(data, 0, 3, (byte) 0);
      }
      int option = random.nextInt(12);
      OptionRequest request = OptionParser.parse(option, ByteBuffer.wrap(data));
      assertEquals(option, request.option(), "seed " + seed + ", step " + i);
    }
  }
}
