package io.qnbd.protocol.codec;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.netty.channel.embedded.EmbeddedChannel;
import io.netty.handler.ssl.SslCloseCompletionEvent;
import io.netty.handler.ssl.SslHandshakeCompletionEvent;
import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.handshake.ExportCatalog;
import io.qnbd.protocol.handshake.Handshake;
import io.qnbd.protocol.handshake.Lookup;
import io.qnbd.protocol.handshake.TlsMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** How the decoder and a TLS handler hand the channel over. */
final class StartTlsTest {
  private static final ExportInfo DISK =
      new ExportInfo("disk", "", 4096, 0, new BlockSizes(1, 4096, 8192));
  private static final byte KEY = 0x5a;
  private static final String HELLO = "client hello";
  private static final int ACK = 1;
  private static final int INVALID = 0x80000003;
  private static final int TLS_REQUIRED = 0x80000005;

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

  /**
   * Not secure at all: takes a fixed greeting for a handshake, and turns bits over from then on.
   */
  private static final class ToyTls extends ChannelDuplexHandler {
    private final ByteBuf hello = Unpooled.buffer();
    private boolean established;

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
      ByteBuf bytes = (ByteBuf) message;
      while (!established && bytes.isReadable()) {
        hello.writeByte(bytes.readByte());
        String soFar = hello.toString(UTF_8);
        if (!HELLO.startsWith(soFar)) {
          bytes.release();
          ctx.fireUserEventTriggered(
              new SslHandshakeCompletionEvent(new IllegalStateException("no hello")));
          return;
        }
        if (soFar.equals(HELLO)) {
          established = true;
          ctx.fireUserEventTriggered(SslHandshakeCompletionEvent.SUCCESS);
        }
      }
      if (bytes.isReadable()) {
        ctx.fireChannelRead(turned(bytes));
      }
      bytes.release();
    }

    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
      ByteBuf bytes = (ByteBuf) message;
      assertTrue(established || !bytes.isReadable(), "written before TLS was up");
      var _ = ctx.write(turned(bytes), promise);
      bytes.release();
    }

    private static ByteBuf turned(ByteBuf bytes) {
      return Unpooled.wrappedBuffer(encrypted(ByteBufUtil.getBytes(bytes)));
    }
  }

  private static byte[] encrypted(byte[] bytes) {
    byte[] turned = bytes.clone();
    for (int i = 0; i < turned.length; i++) {
      turned[i] ^= KEY;
    }
    return turned;
  }

  private static final class Recorder implements HandshakeListener {
    final List<String> seen = new ArrayList<>();

    @Override
    public void startTls(ChannelHandlerContext decoder) {
      assertFalse(decoder.channel().config().isAutoRead());
      seen.add("TLS");
      decoder.pipeline().addFirst(new ToyTls());
    }

    @Override
    public void chosen(Negotiated negotiated, Runnable enter) {
      enter.run();
    }

    @Override
    public void transmitting(Negotiated negotiated) {
      seen.add("transmitting " + negotiated.replies());
    }

    @Override
    public void failed(String reason) {
      seen.add(reason);
    }
  }

  /** Keeps all that is written from the channel until it is told to let it go. */
  private static final class SlowSocket extends ChannelOutboundHandlerAdapter {
    private boolean open;
    private @Nullable Runnable held;

    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
      if (open) {
        var _ = ctx.write(message, promise);
      } else {
        held =
            () -> {
              var _ = ctx.writeAndFlush(message, promise);
            };
      }
    }

    void open() {
      open = true;
      Runnable last = held;
      held = null;
      if (last != null) {
        last.run();
      }
    }
  }

  private static byte[] flags() {
    return new byte[] {0, 0, 0, 3};
  }

  private static byte[] option(int option, int dataBytes) {
    ByteBuf out = Unpooled.buffer();
    out.writeLong(0x49484156454f5054L).writeInt(option).writeInt(dataBytes).writeZero(dataBytes);
    return ByteBufUtil.getBytes(out);
  }

  private static byte[] go() {
    ByteBuf out = Unpooled.buffer();
    out.writeLong(0x49484156454f5054L).writeInt(7).writeInt(10).writeInt(4);
    out.writeBytes("disk".getBytes(UTF_8)).writeShort(0);
    return ByteBufUtil.getBytes(out);
  }

  private static byte[] joined(byte[]... parts) {
    return ByteBufUtil.getBytes(Unpooled.wrappedBuffer(parts));
  }

  private final Recorder recorder = new Recorder();

  private EmbeddedChannel channel(TlsMode tls) {
    EmbeddedChannel channel =
        new EmbeddedChannel(new HandshakeDecoder(new Handshake(new OneDisk(), tls), recorder));
    ByteBuf greeting = channel.readOutbound();
    greeting.release();
    return channel;
  }

  private static void receive(EmbeddedChannel channel, byte[] bytes) {
    channel.writeInbound(Unpooled.copiedBuffer(bytes));
  }

  private static byte[] sent(EmbeddedChannel channel) {
    ByteBuf all = Unpooled.buffer();
    for (ByteBuf next = channel.readOutbound(); next != null; next = channel.readOutbound()) {
      all.writeBytes(next);
      next.release();
    }
    return ByteBufUtil.getBytes(all);
  }

  /** The types of the answers in {@code bytes}. */
  private static List<Integer> answers(byte[] bytes) {
    List<Integer> types = new ArrayList<>();
    ByteBuf in = Unpooled.wrappedBuffer(bytes);
    while (in.isReadable()) {
      assertEquals(0x3e889045565a9L, in.readLong());
      in.skipBytes(Integer.BYTES);
      types.add(in.readInt());
      in.skipBytes(in.readInt());
    }
    return types;
  }

  @Test
  void optionsGoOnOverTls() {
    EmbeddedChannel channel = channel(TlsMode.REQUIRED);
    receive(channel, joined(flags(), option(8, 0), option(5, 4), option(5, 0)));
    assertEquals(List.of(TLS_REQUIRED, INVALID, ACK), answers(sent(channel)));
    assertEquals(List.of("TLS"), recorder.seen);
    assertTrue(channel.config().isAutoRead());
    byte[] rest = joined(option(8, 0), option(5, 0), go(), "requests".getBytes(UTF_8));
    receive(channel, joined(HELLO.getBytes(UTF_8), encrypted(rest)));
    // Structured replies, no second STARTTLS, one piece of information and the ACK of GO.
    assertEquals(List.of(ACK, INVALID, 3, ACK), answers(encrypted(sent(channel))));
    assertEquals(List.of("TLS", "transmitting STRUCTURED"), recorder.seen);
    ByteBuf requests = channel.readInbound();
    assertEquals("requests", requests.toString(UTF_8));
    requests.release();
    assertFalse(channel.finish());
  }

  @Test
  void goesOnTheSameHoweverTheBytesAreCut() {
    byte[] clear = joined(flags(), option(8, 0), option(5, 0));
    byte[] secret =
        joined(HELLO.getBytes(UTF_8), encrypted(joined(option(11, 0), option(3, 0), go())));
    for (int cut = 0; cut <= clear.length + secret.length; cut++) {
      recorder.seen.clear();
      EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
      int clearCut = Math.min(cut, clear.length);
      receive(channel, Arrays.copyOf(clear, clearCut));
      receive(channel, Arrays.copyOfRange(clear, clearCut, clear.length));
      assertEquals(List.of(ACK, ACK), answers(sent(channel)), "cut at " + cut);
      int secretCut = Math.max(0, cut - clear.length);
      receive(channel, Arrays.copyOf(secret, secretCut));
      receive(channel, Arrays.copyOfRange(secret, secretCut, secret.length));
      assertEquals(
          List.of(ACK, 2, ACK, 3, ACK), answers(encrypted(sent(channel))), "cut at " + cut);
      assertEquals(List.of("TLS", "transmitting EXTENDED"), recorder.seen, "cut at " + cut);
      assertFalse(channel.finish());
    }
  }

  @Test
  void whatCameInClearBehindStartTlsEndsTheConnection() {
    byte[] injected = joined(option(8, 0), go());
    for (int bytes = 1; bytes <= injected.length; bytes++) {
      recorder.seen.clear();
      EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
      receive(channel, joined(flags(), option(5, 0), Arrays.copyOf(injected, bytes)));
      assertEquals(List.of(ACK), answers(sent(channel)), bytes + " bytes");
      assertEquals(List.of("bytes in clear behind STARTTLS"), recorder.seen, bytes + " bytes");
      assertFalse(channel.isOpen());
      assertFalse(channel.finish());
    }
  }

  @Test
  void nothingIsReadUntilTheAnswerHasLeft() {
    EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
    SlowSocket socket = new SlowSocket();
    channel.pipeline().addFirst(socket);
    receive(channel, joined(flags(), option(5, 0)));
    assertFalse(channel.config().isAutoRead());
    assertEquals(List.of(), recorder.seen);
    channel.pipeline().fireChannelWritabilityChanged();
    assertFalse(channel.config().isAutoRead());
    socket.open();
    assertEquals(List.of("TLS"), recorder.seen);
    assertTrue(channel.config().isAutoRead());
    assertEquals(List.of(ACK), answers(sent(channel)));
    assertFalse(channel.finish());
  }

  @Test
  void whatWasReadWhileTheAnswerWaitedEndsTheConnection() {
    EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
    SlowSocket socket = new SlowSocket();
    channel.pipeline().addFirst(socket);
    receive(channel, joined(flags(), option(5, 0)));
    receive(channel, go());
    assertEquals(List.of("bytes in clear behind STARTTLS"), recorder.seen);
    socket.open();
    assertEquals(List.of("bytes in clear behind STARTTLS"), recorder.seen, "and no TLS");
    channel.releaseOutbound();
    assertFalse(channel.finish());
  }

  @Test
  void failedTlsEndsTheConnectionWithoutAnotherWordInClear() {
    EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
    receive(channel, joined(flags(), option(5, 0)));
    assertEquals(List.of(ACK), answers(sent(channel)));
    // Options in clear, in a segment of their own, where a greeting should be.
    receive(channel, joined(option(8, 0), go()));
    assertEquals(List.of("TLS", "TLS failed: \"no hello\""), recorder.seen);
    assertFalse(channel.isOpen());
    assertEquals(0, sent(channel).length);
    assertFalse(channel.finish());
  }

  @Test
  void bytesThatPassTheTlsHandlerTooEarlyEndTheConnection() {
    EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
    receive(channel, joined(flags(), option(5, 0)));
    channel.releaseOutbound();
    ChannelHandlerContext tls = channel.pipeline().context(ToyTls.class);
    tls.fireChannelRead(Unpooled.copiedBuffer(go()));
    assertEquals(List.of("TLS", "bytes in clear behind STARTTLS"), recorder.seen);
    assertFalse(channel.isOpen());
    assertFalse(channel.finish());
  }

  @Test
  void refusedStartTlsLeavesTheConnectionInClear() {
    EmbeddedChannel channel = channel(TlsMode.OFF);
    receive(channel, joined(flags(), option(5, 0), option(8, 0), go()));
    assertEquals(List.of(0x80000002, ACK, 3, ACK), answers(sent(channel)));
    assertEquals(List.of("transmitting STRUCTURED"), recorder.seen);
    assertFalse(channel.finish());
  }

  @Test
  void clientThatLeavesDuringTlsIsGone() {
    EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
    receive(channel, joined(flags(), option(5, 0)));
    channel.releaseOutbound();
    assertFalse(channel.finish());
    assertEquals(List.of("TLS", "the client went away"), recorder.seen);
  }

  @Test
  void closeNotifyIsTheEndOfWhatTheClientSends() {
    EmbeddedChannel channel = channel(TlsMode.OPTIONAL);
    receive(channel, joined(flags(), option(5, 0)));
    receive(channel, HELLO.getBytes(UTF_8));
    channel.pipeline().fireUserEventTriggered(SslCloseCompletionEvent.SUCCESS);
    assertEquals(List.of("TLS", "the client stopped sending"), recorder.seen);
    channel.releaseOutbound();
    assertFalse(channel.isOpen());
    assertFalse(channel.finish());
  }
}
