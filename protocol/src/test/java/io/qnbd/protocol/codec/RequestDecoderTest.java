package io.qnbd.protocol.codec;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocatorMetricProvider;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.embedded.EmbeddedChannel;
import io.qnbd.protocol.CommandFlags;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.WireLimits;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class RequestDecoderTest {
  private static final int DATA_BYTES_MAX = 4 << 20;

  /** Writes down what it gets; waits, refuses and accepts as the offset of a request says. */
  private static final class Recorder implements RequestListener {
    static final long REFUSED_OFFSET = 666;

    final List<String> seen = new ArrayList<>();
    final List<String> malformed = new ArrayList<>();
    boolean waits;

    @Override
    public Admission admit(Request request) {
      if (waits) {
        return Admission.WAIT;
      }
      return request.offset() == REFUSED_OFFSET || request instanceof Request.Malformed
          ? Admission.REFUSE
          : Admission.ACCEPT;
    }

    @Override
    public void received(Request request, ByteBuf data) {
      seen.add(
          request + " " + data.readableBytes() + " " + Arrays.hashCode(ByteBufUtil.getBytes(data)));
      data.release();
    }

    @Override
    public void paused() {}

    @Override
    public void malformed(String reason) {
      malformed.add(reason);
    }
  }

  private static void put(ByteBuf out, int command, long cookie, long offset, int bytes) {
    out.writeInt(0x25609513).writeShort(0).writeShort(command).writeLong(cookie);
    out.writeLong(offset).writeInt(bytes);
  }

  private static void putWrite(ByteBuf out, long cookie, long offset, int bytes) {
    put(out, 1, cookie, offset, bytes);
    byte[] data = new byte[bytes];
    new Random(cookie).nextBytes(data);
    out.writeBytes(data);
  }

  /** One of each kind, with data delivered, refused and empty. */
  private static byte[] everyMessage() {
    ByteBuf out = Unpooled.buffer();
    put(out, 0, 1, 0, 4096);
    putWrite(out, 2, 512, 70);
    put(out, 3, 3, 0, 0);
    putWrite(out, 4, Recorder.REFUSED_OFFSET, 33);
    put(out, 4, 5, 0, -1);
    putWrite(out, 6, 0, 0);
    put(out, 5, 7, -1, 1);
    put(out, 6, 8, 0, 8);
    put(out, 0xffff, 9, 0, 8);
    put(out, 2, 10, 0, 0);
    return ByteBufUtil.getBytes(out);
  }

  private static List<String> decode(byte[]... pieces) {
    return decode(ReplyMode.STRUCTURED, pieces);
  }

  private static List<String> decode(ReplyMode replies, byte[]... pieces) {
    Recorder recorder = new Recorder();
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(recorder, replies, DATA_BYTES_MAX));
    for (byte[] piece : pieces) {
      channel.writeInbound(Unpooled.copiedBuffer(piece));
    }
    assertFalse(channel.finish());
    assertEquals(List.of(), recorder.malformed);
    return recorder.seen;
  }

  private static byte[] part(byte[] whole, int from, int to) {
    return Arrays.copyOfRange(whole, from, to);
  }

  @Test
  void decodesTheSameHoweverTheBytesAreCut() {
    assertCutsDoNotMatter(ReplyMode.SIMPLE, everyMessage(), 10);
  }

  @Test
  void decodesExtendedHeadersTheSameHoweverTheBytesAreCut() {
    assertCutsDoNotMatter(ReplyMode.EXTENDED, everyExtendedMessage(), 18);
  }

  private static void assertCutsDoNotMatter(ReplyMode replies, byte[] whole, int requestCount) {
    List<String> expected = decode(replies, whole);
    assertEquals(requestCount, expected.size());
    for (int cut = 0; cut <= whole.length; cut++) {
      assertEquals(
          expected,
          decode(replies, part(whole, 0, cut), part(whole, cut, whole.length)),
          "cut at " + cut);
    }
    byte[][] singles = new byte[whole.length][];
    for (int i = 0; i < whole.length; i++) {
      singles[i] = part(whole, i, i + 1);
    }
    assertEquals(expected, decode(replies, singles), "byte by byte");
  }

  private static final int PAYLOAD = CommandFlags.PAYLOAD_LEN;

  private static void putExtended(
      ByteBuf out, int flags, int command, long cookie, long offset, long bytes) {
    out.writeInt(0x21e41c71).writeShort(flags).writeShort(command).writeLong(cookie);
    out.writeLong(offset).writeLong(bytes);
  }

  private static void putPayload(
      ByteBuf out, int flags, int command, long cookie, long offset, int bytes) {
    putExtended(out, flags | PAYLOAD, command, cookie, offset, bytes);
    byte[] data = new byte[bytes];
    new Random(cookie).nextBytes(data);
    out.writeBytes(data);
  }

  private static void putStatusPayload(ByteBuf out, long cookie, long bytes, int... ids) {
    putExtended(out, PAYLOAD | CommandFlags.REQ_ONE, 7, cookie, 1 << 20, 8 + 4L * ids.length);
    out.writeLong(bytes);
    for (int id : ids) {
      out.writeInt(id);
    }
  }

  /** One of each kind, with payloads where they belong, where they do not, and missing. */
  private static byte[] everyExtendedMessage() {
    ByteBuf out = Unpooled.buffer();
    putExtended(out, 0, 0, 1, 0, 4096);
    putPayload(out, CommandFlags.FUA, 1, 2, 512, 70);
    putExtended(out, 0, 3, 3, 0, 0);
    putPayload(out, 0, 1, 4, Recorder.REFUSED_OFFSET, 33);
    putExtended(out, 0, 4, 5, 0, 1L << 50);
    putPayload(out, 0, 1, 6, 0, 0);
    putExtended(out, 0, 5, 7, -1, -1);
    putExtended(out, CommandFlags.FAST_ZERO, 6, 8, 0, 1L << 33);
    putExtended(out, 0, 0xffff, 9, 0, 8);
    putExtended(out, 0, 1, 10, 0, 1L << 40); // A write without a payload.
    putPayload(out, 0, 0, 11, 0, 20);
    putPayload(out, 0, 3, 12, 0, 1);
    putExtended(out, CommandFlags.REQ_ONE, 7, 13, 0, 1L << 40);
    putStatusPayload(out, 14, 1L << 41, 3, 1, -5);
    putStatusPayload(out, 15, 1L << 42);
    putPayload(out, 0, 7, 16, 0, 7); // Shorter than a length.
    putPayload(out, 0, 7, 17, 0, 14); // No whole number of ids.
    putExtended(out, 0, 2, 18, 0, 0);
    return ByteBufUtil.getBytes(out);
  }

  private static List<Request> requests(ReplyMode replies, ByteBuf stream) {
    List<Request> requests = new ArrayList<>();
    RequestListener listener =
        new RequestListener() {
          @Override
          public Admission admit(Request request) {
            return request instanceof Request.Malformed ? Admission.REFUSE : Admission.ACCEPT;
          }

          @Override
          public void received(Request request, ByteBuf data) {
            data.release();
            requests.add(request);
          }

          @Override
          public void paused() {}

          @Override
          public void malformed(String reason) {
            throw new AssertionError(reason);
          }
        };
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(listener, replies, DATA_BYTES_MAX));
    channel.writeInbound(stream);
    assertFalse(channel.finish());
    return requests;
  }

  @Test
  void lengthsOfExtendedHeadersHave64Bits() {
    ByteBuf out = Unpooled.buffer();
    putExtended(out, 0, 4, 5, -1, -2);
    assertEquals(List.of(new Request.Trim(0, 5, -1, -2)), requests(ReplyMode.EXTENDED, out));
  }

  @Test
  void payloadFlagVanishesWhereItIsInOrder() {
    ByteBuf out = Unpooled.buffer();
    putPayload(out, CommandFlags.FUA, 1, 2, 512, 70);
    putStatusPayload(out, 3, 1L << 41, 9, 9);
    assertEquals(
        List.of(
            new Request.Write(CommandFlags.FUA, 2, 512, 70),
            new Request.BlockStatus(CommandFlags.REQ_ONE, 3, 1 << 20, 1L << 41, List.of(9, 9))),
        requests(ReplyMode.EXTENDED, out));
  }

  @Test
  void payloadFlagStaysWithCompactHeadersAndChangesNothing() {
    ByteBuf out = Unpooled.buffer();
    out.writeInt(0x25609513).writeShort(PAYLOAD).writeShort(1).writeLong(1);
    out.writeLong(0).writeInt(4).writeInt(-1);
    out.writeInt(0x25609513).writeShort(PAYLOAD).writeShort(7).writeLong(2);
    out.writeLong(0).writeInt(12);
    put(out, 3, 3, 0, 0);
    assertEquals(
        List.of(
            new Request.Write(PAYLOAD, 1, 0, 4),
            new Request.BlockStatus(PAYLOAD, 2, 0, 12),
            new Request.Flush(0, 3, 0, 0)),
        requests(ReplyMode.STRUCTURED, out));
  }

  @Test
  void writeWithoutPayloadHasNoneAndIsMalformed() {
    ByteBuf out = Unpooled.buffer();
    putExtended(out, 0, 1, 1, 0, 4096);
    putExtended(out, 0, 3, 2, 0, 0);
    List<Request> requests = requests(ReplyMode.EXTENDED, out);
    assertEquals(2, requests.size());
    assertEquals(0, assertInstanceOf(Request.Malformed.class, requests.getFirst()).dataBytes());
  }

  @Test
  void unexpectedPayloadIsConsumedAndMalformed() {
    for (int command : new int[] {0, 3, 4, 5, 6, 8, 0xffff}) {
      ByteBuf out = Unpooled.buffer();
      putPayload(out, 0, command, 1, 0, 4096);
      putExtended(out, 0, 3, 2, 0, 0);
      List<Request> requests = requests(ReplyMode.EXTENDED, out);
      assertEquals(2, requests.size(), "command " + command);
      assertInstanceOf(Request.Malformed.class, requests.getFirst());
      assertEquals(new Request.Flush(0, 2, 0, 0), requests.getLast());
    }
  }

  @Test
  void statusPayloadsOfWrongSizeAreConsumedAndMalformed() {
    int idsMax = WireLimits.CONTEXTS_MAX;
    for (int bytes : new int[] {1, 7, 9, 10, 11, 13, 8 + 4 * (idsMax + 1), 1 << 20}) {
      ByteBuf out = Unpooled.buffer();
      putPayload(out, 0, 7, 1, 0, bytes);
      putExtended(out, 0, 3, 2, 0, 0);
      List<Request> requests = requests(ReplyMode.EXTENDED, out);
      assertEquals(2, requests.size(), bytes + " bytes");
      assertInstanceOf(Request.Malformed.class, requests.getFirst(), bytes + " bytes");
    }
    ByteBuf most = Unpooled.buffer();
    putPayload(most, 0, 7, 1, 0, 8 + 4 * idsMax);
    Request status = requests(ReplyMode.EXTENDED, most).getFirst();
    List<Integer> ids = assertInstanceOf(Request.BlockStatus.class, status).contextIds();
    assertEquals(idsMax, ids == null ? -1 : ids.size());
  }

  @Test
  void payloadsAboveTheLimitCutOffWhateverTheCommand() {
    for (int command : new int[] {0, 1, 3, 7, 99}) {
      for (long bytes : new long[] {DATA_BYTES_MAX + 1L, 1L << 32, Long.MAX_VALUE, -1}) {
        Recorder recorder = new Recorder();
        EmbeddedChannel channel =
            new EmbeddedChannel(new RequestDecoder(recorder, ReplyMode.EXTENDED, DATA_BYTES_MAX));
        ByteBuf out = Unpooled.buffer();
        putExtended(out, PAYLOAD, command, 1, 0, bytes);
        channel.writeInbound(out);
        assertEquals(1, recorder.malformed.size(), "command " + command + ", " + bytes);
        assertEquals(List.of(), recorder.seen);
        assertFalse(channel.finish());
      }
    }
  }

  @Test
  void headersOfTheOtherKindAreBadMagic() {
    ByteBuf compact = Unpooled.buffer();
    put(compact, 3, 1, 0, 0);
    compact.writeZero(4);
    ByteBuf extended = Unpooled.buffer();
    putExtended(extended, 0, 3, 1, 0, 0);
    assertEquals(List.of("request magic is 0x25609513"), malformed(ReplyMode.EXTENDED, compact));
    assertEquals(List.of("request magic is 0x21e41c71"), malformed(ReplyMode.STRUCTURED, extended));
  }

  private static List<String> malformed(ReplyMode replies, ByteBuf stream) {
    Recorder recorder = new Recorder();
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(recorder, replies, DATA_BYTES_MAX));
    channel.writeInbound(stream);
    assertFalse(channel.finish());
    assertEquals(List.of(), recorder.seen);
    return recorder.malformed;
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4})
  void decodesRandomExtendedStreamsCutAtRandom(long seed) {
    Random random = new Random(seed);
    ByteBuf stream = Unpooled.buffer();
    for (int i = 0; i < 80; i++) {
      int command = random.nextInt(0, 9);
      if (command == 2 || random.nextInt(3) == 0) {
        putExtended(stream, random.nextInt(32), 3, i, random.nextLong(), random.nextLong());
      } else {
        long offset = random.nextInt(4) == 0 ? Recorder.REFUSED_OFFSET : i;
        int bytes = random.nextInt(random.nextBoolean() ? 300 : 100_000);
        putPayload(stream, random.nextInt(32), command, i, offset, bytes);
      }
    }
    byte[] whole = ByteBufUtil.getBytes(stream);
    List<String> expected = decode(ReplyMode.EXTENDED, whole);
    assertEquals(80, expected.size(), "seed " + seed);
    List<byte[]> pieces = new ArrayList<>();
    int at = 0;
    while (at < whole.length) {
      int to = Math.min(whole.length, at + 1 + random.nextInt(20_000));
      pieces.add(part(whole, at, to));
      at = to;
    }
    assertEquals(
        expected, decode(ReplyMode.EXTENDED, pieces.toArray(byte[][]::new)), "seed " + seed);
  }

  @Test
  void lendsNothingBehindAnotherHandler() {
    RequestDecoder decoder = new RequestDecoder(new Recorder(), ReplyMode.SIMPLE, DATA_BYTES_MAX);
    EmbeddedChannel channel = new EmbeddedChannel(decoder);
    ByteBuf header = Unpooled.buffer();
    put(header, 1, 1, 0, 1 << 20);
    header.writeByte(0);
    channel.writeInbound(header);
    ByteBuf lent = decoder.lend();
    assertNotNull(lent);
    lent.release();
    channel.pipeline().addFirst(new ChannelInboundHandlerAdapter());
    assertNull(decoder.lend());
    assertFalse(channel.finish());
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6})
  void decodesRandomStreamsCutAtRandomWithPauses(long seed) {
    Random random = new Random(seed);
    ByteBuf stream = Unpooled.buffer();
    for (int i = 0; i < 60; i++) {
      if (random.nextBoolean()) {
        long offset = random.nextInt(4) == 0 ? Recorder.REFUSED_OFFSET : i;
        putWrite(stream, i, offset, random.nextInt(random.nextBoolean() ? 100 : 200_000));
      } else {
        put(stream, random.nextInt(2, 9), i, random.nextLong(), random.nextInt());
      }
    }
    byte[] whole = ByteBufUtil.getBytes(stream);
    List<String> expected = decode(whole);
    assertEquals(60, expected.size(), "seed " + seed);

    Recorder recorder = new Recorder();
    RequestDecoder decoder = new RequestDecoder(recorder, ReplyMode.SIMPLE, DATA_BYTES_MAX);
    EmbeddedChannel channel = new EmbeddedChannel(decoder);
    int at = 0;
    while (at < whole.length) {
      int to = Math.min(whole.length, at + 1 + random.nextInt(100_000));
      recorder.waits = random.nextBoolean();
      decoder.resume();
      channel.writeInbound(Unpooled.copiedBuffer(part(whole, at, to)));
      assertEquals(!decoder.waiting(), channel.config().isAutoRead(), "seed " + seed);
      at = to;
    }
    recorder.waits = false;
    decoder.resume();
    assertEquals(expected, recorder.seen, "seed " + seed);
    assertTrue(channel.config().isAutoRead());
    assertFalse(channel.finish());
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4})
  void takesDataThatWasReceivedInItsPlace(long seed) {
    Random random = new Random(seed);
    ByteBuf stream = Unpooled.buffer();
    for (int i = 0; i < 8; i++) {
      putWrite(stream, i, random.nextInt(5) == 0 ? Recorder.REFUSED_OFFSET : i, 3_000_000);
      put(stream, 3, i, 0, 0);
    }
    List<String> expected = decode(ByteBufUtil.getBytes(stream));
    Recorder recorder = new Recorder();
    RequestDecoder decoder = new RequestDecoder(recorder, ReplyMode.SIMPLE, DATA_BYTES_MAX);
    EmbeddedChannel channel = new EmbeddedChannel(decoder);
    int lentCount = 0;
    while (stream.isReadable()) {
      ByteBuf target = decoder.lend();
      lentCount += target == null ? 0 : 1;
      if (target == null) {
        target = Unpooled.buffer(65536, 65536);
      }
      int bytes = Math.min(stream.readableBytes(), random.nextInt(target.writableBytes() + 1));
      target.writeBytes(stream, bytes);
      if (bytes == 0) {
        target.release();
      } else {
        channel.writeInbound(target);
      }
    }
    assertEquals(expected, recorder.seen, "seed " + seed);
    assertTrue(lentCount > 8, "seed " + seed);
    assertFalse(channel.finish());
  }

  @Test
  void growsWithWhatComesAndNotWithWhatIsAnnounced() {
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(new Recorder(), ReplyMode.SIMPLE, 64 << 20));
    ByteBuf header = Unpooled.buffer();
    put(header, 1, 1, 0, 64 << 20);
    header.writeZero(100);
    long before = allocated(channel);
    channel.writeInbound(header);
    assertTrue(allocated(channel) - before < 16 << 20, (allocated(channel) - before) + " bytes");
    assertFalse(channel.finish());
  }

  private static long allocated(EmbeddedChannel channel) {
    return ((ByteBufAllocatorMetricProvider) channel.alloc()).metric().usedDirectMemory();
  }

  @Test
  void believesNothingAfterBadMagic() {
    Recorder recorder = new Recorder();
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(recorder, ReplyMode.SIMPLE, DATA_BYTES_MAX));
    ByteBuf out = Unpooled.buffer();
    put(out, 3, 1, 0, 0);
    out.writeZero(28);
    put(out, 3, 2, 0, 0);
    channel.writeInbound(out);
    ByteBuf more = Unpooled.buffer();
    put(more, 3, 3, 0, 0);
    channel.writeInbound(more);
    assertEquals(1, recorder.seen.size());
    assertEquals(List.of("request magic is 0x0"), recorder.malformed);
    assertEquals(0, more.refCnt());
    assertFalse(channel.finish());
  }

  @Test
  void cutsOffAnnouncementsOfTooMuch() {
    Recorder recorder = new Recorder();
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(recorder, ReplyMode.SIMPLE, DATA_BYTES_MAX));
    ByteBuf out = Unpooled.buffer();
    putWrite(out, 1, 0, DATA_BYTES_MAX);
    put(out, 1, 2, 0, DATA_BYTES_MAX + 1);
    channel.writeInbound(out);
    assertEquals(1, recorder.seen.size());
    assertEquals(
        List.of("request with 4194305 bytes of data, at most 4194304 are taken"),
        recorder.malformed);
    assertFalse(channel.finish());
  }

  @Test
  void releasesWhatIsHalfReceivedWhenTheChannelCloses() {
    Recorder recorder = new Recorder();
    RequestDecoder decoder = new RequestDecoder(recorder, ReplyMode.SIMPLE, DATA_BYTES_MAX);
    EmbeddedChannel channel = new EmbeddedChannel(decoder);
    ByteBuf first = Unpooled.buffer();
    put(first, 1, 1, 0, 1000);
    first.writeZero(10);
    channel.writeInbound(first);
    recorder.waits = true;
    ByteBuf second = Unpooled.buffer().writeZero(990);
    put(second, 0, 2, 0, 512);
    channel.writeInbound(second);
    assertTrue(decoder.waiting());
    ByteBuf third = Unpooled.buffer().writeZero(100);
    channel.writeInbound(third);
    assertFalse(channel.finish());
    assertEquals(0, first.refCnt());
    assertEquals(0, second.refCnt());
    assertEquals(0, third.refCnt());
  }
}
