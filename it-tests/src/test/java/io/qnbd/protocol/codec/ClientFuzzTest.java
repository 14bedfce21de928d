package io.qnbd.protocol.codec;

import com.code_intelligence.jazzer.junit.FuzzTest;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.embedded.EmbeddedChannel;
import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.handshake.ExportCatalog;
import io.qnbd.protocol.handshake.Handshake;
import io.qnbd.protocol.handshake.Lookup;
import io.qnbd.protocol.handshake.TlsMode;
import java.util.List;

/** What a client may send: options and requests that a fuzzer makes up. */
final class ClientFuzzTest {
  private static final int DATA_BYTES_MAX = 1 << 16;
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

  private static final class Entering implements HandshakeListener {
    @Override
    public void startTls(ChannelHandlerContext decoder) {
      throw new AssertionError("TLS was not offered");
    }

    @Override
    public void chosen(Negotiated negotiated, Runnable enter) {
      enter.run();
    }

    @Override
    public void transmitting(Negotiated negotiated) {}

    @Override
    public void failed(String reason) {
      requireSentence(reason);
    }
  }

  private static final class Taking implements RequestListener {
    @Override
    public Admission admit(Request request) {
      return request instanceof Request.Malformed ? Admission.REFUSE : Admission.ACCEPT;
    }

    @Override
    public void received(Request request, ByteBuf data) {
      data.release();
    }

    @Override
    public void paused() {}

    @Override
    public void malformed(String reason) {
      requireSentence(reason);
    }
  }

  private static void requireSentence(String reason) {
    if (reason.length() < 5) {
      throw new AssertionError("no sentence: " + reason);
    }
  }

  @FuzzTest
  void handshakeIsAnsweredOrEnded(byte[] bytes) {
    EmbeddedChannel channel =
        new EmbeddedChannel(
            new HandshakeDecoder(new Handshake(new OneDisk(), TlsMode.OFF), new Entering()));
    feed(channel, bytes);
  }

  /** The first byte says how the client has asked for replies. */
  @FuzzTest
  void requestsAreTakenOrRefused(byte[] bytes) {
    if (bytes.length > 0) {
      ReplyMode[] modes = ReplyMode.values();
      ReplyMode replies = modes[(bytes[0] & 0xff) % modes.length];
      feed(new EmbeddedChannel(new RequestDecoder(new Taking(), replies, DATA_BYTES_MAX)), bytes);
    }
  }

  /** In two pieces, so that messages are cut. */
  private static void feed(EmbeddedChannel channel, byte[] bytes) {
    int from = Math.min(1, bytes.length);
    int cut = from + (bytes.length - from) / 2;
    channel.writeInbound(Unpooled.copiedBuffer(bytes, from, cut - from));
    channel.writeInbound(Unpooled.copiedBuffer(bytes, cut, bytes.length - cut));
    channel.finishAndReleaseAll();
  }
}
