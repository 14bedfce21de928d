package io.qnbd.protocol.codec;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class OptionParserTest {
  private static byte[] go(int nameBytes, String name, int count, int... kinds) {
    byte[] encoded = name.getBytes(UTF_8);
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

  private static final int LIST = OptionType.LIST_META_CONTEXT;
  private static final int SET = OptionType.SET_META_CONTEXT;

  /** The data of options 9 and 10, with lengths as told and not as they are. */
  private static byte[] contexts(int nameBytes, String name, int count, Object... parts) {
    ByteBuffer data = ByteBuffer.allocate(1000);
    data.putInt(nameBytes).put(name.getBytes(UTF_8)).putInt(count);
    for (Object part : parts) {
      if (part instanceof Integer bytes) {
        data.putInt(bytes);
      } else {
        data.put(part.toString().getBytes(UTF_8));
      }
    }
    return Arrays.copyOf(data.array(), data.position());
  }

  private static byte[] twoQueries() {
    return contexts(4, "disk", 2, 15, "base:allocation", 5, "qemu:");
  }

  @Test
  void readsExportAndQueries() {
    for (boolean set : new boolean[] {false, true}) {
      int option = set ? SET : LIST;
      assertEquals(
          new OptionRequest.MetaContexts(set, "disk", List.of("base:allocation", "qemu:")),
          OptionParser.parse(option, ByteBuffer.wrap(twoQueries())));
      assertEquals(
          new OptionRequest.MetaContexts(set, "", List.of()),
          OptionParser.parse(option, ByteBuffer.wrap(contexts(0, "", 0))));
      assertEquals(
          new OptionRequest.MetaContexts(set, "", List.of("")),
          OptionParser.parse(option, ByteBuffer.wrap(contexts(0, "", 1, 0))),
          "an empty query is for the handshake to judge");
    }
  }

  private static void assertInvalidContexts(String why, byte[] data) {
    for (int option : new int[] {LIST, SET}) {
      assertInstanceOf(
          OptionRequest.Invalid.class, OptionParser.parse(option, ByteBuffer.wrap(data)), why);
    }
  }

  @Test
  void refusesEveryLyingLengthOfContextQueries() {
    assertInvalidContexts("name too long", contexts(5, "disk", 0));
    assertInvalidContexts("name too short", contexts(3, "disk", 0));
    assertInvalidContexts("name of 2^32 - 1", contexts(-1, "disk", 0));
    assertInvalidContexts("name of 2^31", contexts(Integer.MIN_VALUE, "disk", 0));
    assertInvalidContexts("2^31 queries", contexts(4, "disk", Integer.MIN_VALUE));
    assertInvalidContexts("2^31 queries", contexts(4, "disk", Integer.MIN_VALUE, 5, "base:"));
    assertInvalidContexts("2^32 - 1 queries", contexts(4, "disk", -1, 5, "base:"));
    assertInvalidContexts("fewer queries than told", contexts(4, "disk", 2, 5, "base:"));
    assertInvalidContexts("query too long", contexts(4, "disk", 1, 6, "base:"));
    assertInvalidContexts("query of 2^32 - 1", contexts(4, "disk", 1, -1, "base:"));
    assertInvalidContexts("bytes behind no query", contexts(4, "disk", 0, 0));
    assertInvalidContexts("bytes behind the last", contexts(4, "disk", 1, 5, "base:x"));
    assertInvalidContexts("a query more", contexts(4, "disk", 1, 5, "base:", 5, "qemu:"));
    byte[] whole = twoQueries();
    for (int bytes = 0; bytes < whole.length; bytes++) {
      assertInvalidContexts("cut at " + bytes, Arrays.copyOf(whole, bytes));
    }
  }

  @Test
  void refusesIllegalStringsInContextQueries() {
    assertInvalidContexts("NUL in the name", contexts(4, "di\0k", 0));
    assertInvalidContexts("NUL in a query", contexts(4, "disk", 1, 5, "bas\0:"));
    byte[] whole = twoQueries();
    whole[whole.length - 1] = (byte) 0xff;
    assertInvalidContexts("no UTF-8", whole);
    ByteBuffer tooLong = ByteBuffer.allocate(12 + 4097);
    tooLong.putInt(0).putInt(1).putInt(4097).put("x:".repeat(2048).getBytes(UTF_8));
    tooLong.put((byte) 'x');
    assertInvalidContexts("query of 4097 bytes", tooLong.array());
  }

  @Test
  void optionsWithoutDataAreInvalidWithAny() {
    int[] options = {
      OptionType.LIST, OptionType.STARTTLS, OptionType.STRUCTURED_REPLY, OptionType.EXTENDED_HEADERS
    };
    for (int option : options) {
      assertFalse(OptionParser.reads(option));
      assertEquals(option, OptionParser.skipped(option, 0).option());
      assertFalse(OptionParser.skipped(option, 0) instanceof OptionRequest.Invalid);
      for (long bytes : new long[] {1, 4, 32 << 20}) {
        assertInstanceOf(OptionRequest.Invalid.class, OptionParser.skipped(option, bytes));
      }
    }
    assertEquals(new OptionRequest.Abort(), OptionParser.skipped(OptionType.ABORT, 100));
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
      int option = random.nextInt(14);
      OptionRequest request = OptionParser.parse(option, ByteBuffer.wrap(data));
      assertEquals(option, request.option(), "seed " + seed + ", step " + i);
    }
  }
}
