package io.qnbd.protocol.codec;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.embedded.EmbeddedChannel;
import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.handshake.ExportCatalog;
import io.qnbd.protocol.handshake.Handshake;
import io.qnbd.protocol.handshake.Lookup;
import io.qnbd.protocol.handshake.TlsMode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class HandshakeDecoderTest {
  private static final ExportInfo DISK =
      new ExportInfo(
          "disk", "a disk", 4096, 0, new BlockSizes(1, 4096, 8192), List.of("base:allocation"));

  private static final class OneDisk implements ExportCatalog {
    @Override
    public List<ExportInfo> list() {
      return List.of(DISK);
    }

    @Override
    public Lookup find(String name) {
      return name.equals("disk") ? new Lookup.Found(DISK) : new Lookup.Unknown();
    }
  }

  private static final class Recorder implements HandshakeListener {
    final List<String> seen = new ArrayList<>();
    Runnable enter = () -> {};
    boolean late;

    @Override
    public void startTls(ChannelHandlerContext decoder) {
      throw new AssertionError("TLS was not offered");
    }

    @Override
    public void chosen(Negotiated negotiated, Runnable proceed) {
      enter = proceed;
      if (!late) {
        proceed.run();
      }
    }

    @Override
    public void transmitting(Negotiated negotiated) {
      seen.add("transmitting " + negotiated.replies() + " " + negotiated.contexts().size());
    }

    @Override
    public void failed(String reason) {
      seen.add(reason);
    }
  }

  private static void putOption(ByteBuf out, int option, byte[] data) {
    out.writeLong(0x49484156454f5054L).writeInt(option).writeInt(data.length).writeBytes(data);
  }

  private static byte[] goData() {
    ByteBuf data = Unpooled.buffer();
    data.writeInt(4).writeBytes("disk".getBytes(StandardCharsets.UTF_8));
    data.writeShort(3).writeShort(1).writeShort(2).writeShort(3);
    return ByteBufUtil.getBytes(data);
  }

  private static byte[] contextData(int count) {
    ByteBuf data = Unpooled.buffer();
    data.writeInt(4).writeBytes("disk".getBytes(StandardCharsets.UTF_8)).writeInt(count);
    for (int i = 0; i < count; i++) {
      data.writeInt(15).writeBytes("base:allocation".getBytes(StandardCharsets.UTF_8));
    }
    return ByteBufUtil.getBytes(data);
  }

  private static byte[] conversation() {
    ByteBuf out = Unpooled.buffer();
    out.writeInt(3);
    putOption(out, 77, new byte[40]);
    putOption(out, 3, new byte[0]);
    putOption(out, 8, new byte[0]);
    putOption(out, 8, new byte[1]);
    putOption(out, 9, contextData(0));
    putOption(out, 10, contextData(2));
    putOption(out, 10, new byte[100]);
    putOption(out, 10, contextData(1));
    putOption(out, 5, new byte[0]);
    putOption(out, 5, new byte[3]);
    putOption(out, 11, new byte[9]);
    putOption(out, 6, goData());
    putOption(out, 7, new byte[] {1, 2, 3});
    putOption(out, 7, goData());
    out.writeBytes("requests".getBytes(StandardCharsets.UTF_8));
    return ByteBufUtil.getBytes(out);
  }

  private static String outcome(byte[]... pieces) {
    Recorder recorder = new Recorder();
    EmbeddedChannel channel =
        new EmbeddedChannel(
            new HandshakeDecoder(new Handshake(new OneDisk(), TlsMode.OFF), recorder));
    for (byte[] piece : pieces) {
      channel.writeInbound(Unpooled.copiedBuffer(piece));
    }
    String sent = ByteBufUtil.hexDump(all(channel, true));
    String rest = all(channel, false).toString(StandardCharsets.UTF_8);
    assertNull(channel.pipeline().get(HandshakeDecoder.class), "it has left");
    assertFalse(channel.finish());
    return sent + " " + rest + " " + recorder.seen;
  }

  private static ByteBuf all(EmbeddedChannel channel, boolean outbound) {
    ByteBuf all = Unpooled.buffer();
    while (true) {
      ByteBuf next = outbound ? channel.readOutbound() : channel.readInbound();
      if (next == null) {
        return all;
      }
      all.writeBytes(next);
      next.release();
    }
  }

  @Test
  void saysTheSameHoweverTheBytesAreCut() {
    byte[] whole = conversation();
    String expected = outcome(whole);
    assertTrue(expected.endsWith(" requests [transmitting STRUCTURED 1]"), expected);
    for (int cut = 0; cut <= whole.length; cut++) {
      assertEquals(
          expected,
          outcome(Arrays.copyOf(whole, cut), Arrays.copyOfRange(whole, cut, whole.length)),
          "cut at " + cut);
    }
  }

  @Test
  void holdsRequestsBackUntilItMayEnter() {
    Recorder recorder = new Recorder();
    recorder.late = true;
    EmbeddedChannel channel =
        new EmbeddedChannel(
            new HandshakeDecoder(new Handshake(new OneDisk(), TlsMode.OFF), recorder));
    channel.writeInbound(Unpooled.copiedBuffer(conversation()));
    assertFalse(channel.config().isAutoRead());
    assertNull(channel.readInbound());
    recorder.enter.run();
    assertTrue(channel.config().isAutoRead());
    assertEquals("requests", all(channel, false).toString(StandardCharsets.UTF_8));
    assertTrue(channel.finish(), "the answers");
    channel.releaseOutbound();
  }

  @Test
  void eachStepIsOneWrite() {
    EmbeddedChannel channel =
        new EmbeddedChannel(
            new HandshakeDecoder(new Handshake(new OneDisk(), TlsMode.OFF), new Recorder()));
    ByteBuf greeting = channel.readOutbound();
    assertEquals(18, greeting.readableBytes());
    greeting.release();
    ByteBuf out = Unpooled.buffer().writeInt(3);
    putOption(out, 7, goData());
    channel.writeInbound(out);
    ByteBuf answers = channel.readOutbound();
    assertTrue(answers.readableBytes() > 4 * 20, "four pieces of information and an ACK");
    answers.release();
    assertFalse(channel.finish());
  }

  private static final int ERRORS = 1 << 31;
  private static final int INVALID = ERRORS + 3;
  private static final int TOO_BIG = ERRORS + 9;

  /** The last answer to each option in {@code sent}, after the greeting: {option, type}. */
  private static List<List<Integer>> finalAnswers(ByteBuf sent) {
    List<List<Integer>> answers = new ArrayList<>();
    sent.skipBytes(18);
    while (sent.isReadable()) {
      assertEquals(0x3e889045565a9L, sent.readLong());
      int option = sent.readInt();
      int type = sent.readInt();
      sent.skipBytes(sent.readInt());
      if (type == 1 || type < 0) {
        answers.add(List.of(option, type));
      }
    }
    return answers;
  }

  private static List<List<Integer>> answersTo(ByteBuf stream) {
    EmbeddedChannel channel =
        new EmbeddedChannel(
            new HandshakeDecoder(new Handshake(new OneDisk(), TlsMode.OFF), new Recorder()));
    channel.writeInbound(stream);
    List<List<Integer>> answers = finalAnswers(all(channel, true));
    assertFalse(channel.finish());
    return answers;
  }

  @Test
  void dataWhereNoneBelongsIsInvalidWhateverItsSize() {
    for (int option : new int[] {3, 5, 8, 11}) {
      for (int bytes : new int[] {1, 4, 100_000, 1 << 20}) {
        ByteBuf out = Unpooled.buffer().writeInt(3);
        putOption(out, option, new byte[bytes]);
        putOption(out, 3, new byte[0]);
        assertEquals(
            List.of(List.of(option, INVALID), List.of(3, 1)), answersTo(out), bytes + " bytes");
      }
    }
  }

  @Test
  void moreDataThanIsReadIsTooBig() {
    for (int option : new int[] {6, 7, 9, 10}) {
      ByteBuf out = Unpooled.buffer().writeInt(3);
      putOption(out, option, new byte[WireLimits.OPTION_BYTES_MAX + 1]);
      putOption(out, option, new byte[WireLimits.OPTION_BYTES_MAX]);
      putOption(out, 3, new byte[0]);
      assertEquals(
          List.of(List.of(option, TOO_BIG), List.of(option, INVALID), List.of(3, 1)),
          answersTo(out));
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6})
  void staysInStepWhateverTheDataIs(long seed) {
    Random random = new Random(seed);
    ByteBuf out = Unpooled.buffer().writeInt(3);
    List<Integer> options = new ArrayList<>();
    for (int i = 0; i < 1000; i++) {
      // All but those that end the handshake.
      int option = random.nextInt(3, 14);
      if (option != 7) {
        byte[] data =
            switch (random.nextInt(4)) {
              case 0 -> new byte[0];
              case 1 -> goData();
              case 2 -> contextData(random.nextInt(3));
              default -> new byte[random.nextInt(40)];
            };
        for (int flips = random.nextInt(3); flips > 0 && data.length > 0; flips--) {
          data[random.nextInt(data.length)] ^= (byte) (1 << random.nextInt(8));
        }
        data = random.nextInt(3) == 0 ? Arrays.copyOf(data, random.nextInt(60)) : data;
        putOption(out, option, data);
        options.add(option);
      }
    }
    List<Integer> answered = answersTo(out).stream().map(List::getFirst).toList();
    assertEquals(options, answered, "seed " + seed);
  }
}
