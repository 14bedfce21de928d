package io.qnbd.protocol.codec;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocatorMetricProvider;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.embedded.EmbeddedChannel;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
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
      return request.offset() == REFUSED_OFFSET ? Admission.REFUSE : Admission.ACCEPT;
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
    Recorder recorder = new Recorder();
    EmbeddedChannel channel =
        new EmbeddedChannel(new RequestDecoder(recorder, ReplyMode.SIMPLE, DATA_BYTES_MAX));
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
    byte[] whole = everyMessage();
    List<String> expected = decode(whole);
    assertEquals(10, expected.size());
    for (int cut = 0; cut <= whole.length; cut++) {
      assertEquals(
          expected, decode(part(whole, 0, cut), part(whole, cut, whole.length)), "cut at " + cut);
    }
    byte[][] singles = new byte[whole.length][];
    for (int i = 0; i < whole.length; i++) {
      singles[i] = part(whole, i, i + 1);
    }
    assertEquals(expected, decode(singles), "byte by byte");
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
