package io.qnbd.protocol.codec;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.qnbd.protocol.ContextExtents;
import io.qnbd.protocol.Extent;
import io.qnbd.protocol.NbdError;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import java.util.List;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.Test;

/** Compares with bytes written by hand from the specification; {@code |} parts the fields. */
final class ReplyEncoderTest {
  private static final Request.Read READ = new Request.Read(0, 0x0a0b0c0d0e0f1011L, 0x1000, 0x2000);
  private static final String COOKIE = "0a0b0c0d0e0f1011";
  private static final String OFFSET = "0000000000001000";
  private static final Request.Flush FLUSH = new Request.Flush(0, READ.cookie(), 0, 0);
  private static final Request.Write WRITE =
      new Request.Write(0, READ.cookie(), READ.offset(), READ.bytes());
  private static final Request.BlockStatus STATUS =
      new Request.BlockStatus(0, READ.cookie(), READ.offset(), READ.bytes());

  private static void check(
      String expected, ReplyMode replies, BiConsumer<ReplyEncoder, ByteBuf> put) {
    ByteBuf out = Unpooled.buffer();
    put.accept(new ReplyEncoder(replies), out);
    assertEquals(expected.replace("|", ""), ByteBufUtil.hexDump(out), expected);
  }

  private static void check(String expected, ReplyMode replies, Reply reply) {
    check(expected, replies, (encoder, out) -> encoder.put(out, reply));
  }

  @Test
  void simpleRepliesCarryNumberAndCookieAlone() {
    check("67446698|00000000|" + COOKIE, ReplyMode.SIMPLE, new Reply.Done(READ));
    check("67446698|00000000|" + COOKIE, ReplyMode.SIMPLE, new Reply.Data(READ));
    check("67446698|00000000|" + COOKIE, ReplyMode.SIMPLE, new Reply.Done(FLUSH));
    check(
        "67446698|0000001c|" + COOKIE,
        ReplyMode.SIMPLE,
        new Reply.Failed(WRITE, NbdError.ENOSPC, "no room", READ.offset()));
  }

  @Test
  void structuredModeHasSimpleRepliesForSuccessWithoutDataAndNeverForReads() {
    check("67446698|00000000|" + COOKIE, ReplyMode.STRUCTURED, new Reply.Done(FLUSH));
    check("67446698|00000000|" + COOKIE, ReplyMode.STRUCTURED, new Reply.Done(WRITE));
    check("668e33ef|0001|0000|" + COOKIE + "|00000000", ReplyMode.STRUCTURED, new Reply.Done(READ));
  }

  @Test
  void extendedModeHasNoSimpleReply() {
    String none = "6e8a278c|0001|0000|" + COOKIE;
    check(none + "|0000000000000000|0000000000000000", ReplyMode.EXTENDED, new Reply.Done(FLUSH));
    check(none + "|" + OFFSET + "|0000000000000000", ReplyMode.EXTENDED, new Reply.Done(WRITE));
    check(none + "|" + OFFSET + "|0000000000000000", ReplyMode.EXTENDED, new Reply.Done(READ));
  }

  @Test
  void wholeReadIsOneLastChunk() {
    check(
        "668e33ef|0001|0001|" + COOKIE + "|00002008|" + OFFSET,
        ReplyMode.STRUCTURED,
        new Reply.Data(READ));
    check(
        "6e8a278c|0001|0001|" + COOKIE + "|" + OFFSET + "|0000000000002008|" + OFFSET,
        ReplyMode.EXTENDED,
        new Reply.Data(READ));
  }

  @Test
  void piecesAreDoneOnlyWhenTheyAreTheLast() {
    check(
        "668e33ef|0000|0001|" + COOKIE + "|00000208|0000000000001200",
        ReplyMode.STRUCTURED,
        (encoder, out) -> encoder.putDataHeader(out, READ, 0x1200, 0x200, false));
    check(
        "668e33ef|0000|0002|" + COOKIE + "|0000000c|0000000000001400|00000300",
        ReplyMode.STRUCTURED,
        (encoder, out) -> encoder.putHole(out, READ, 0x1400, 0x300, false));
    check(
        "668e33ef|0001|0002|" + COOKIE + "|0000000c|0000000000002fff|00000001",
        ReplyMode.STRUCTURED,
        (encoder, out) -> encoder.putHole(out, READ, 0x2fff, 1, true));
  }

  @Test
  void extendedPiecesRepeatTheOffsetOfTheRequest() {
    check(
        "6e8a278c|0000|0001|" + COOKIE + "|" + OFFSET + "|0000000000000208|0000000000001200",
        ReplyMode.EXTENDED,
        (encoder, out) -> encoder.putDataHeader(out, READ, 0x1200, 0x200, false));
    check(
        "6e8a278c|0001|0002|"
            + COOKIE
            + "|"
            + OFFSET
            + "|000000000000000c|0000000000001400"
            + "|00000300",
        ReplyMode.EXTENDED,
        (encoder, out) -> encoder.putHole(out, READ, 0x1400, 0x300, true));
  }

  @Test
  void headerSizesAreWhatIsWritten() {
    for (ReplyMode replies : ReplyMode.values()) {
      ReplyEncoder encoder = new ReplyEncoder(replies);
      ByteBuf data = Unpooled.buffer();
      encoder.putDataHeader(data, READ, READ.offset(), (int) READ.bytes(), true);
      assertEquals(encoder.dataHeaderBytes(), data.readableBytes(), replies.toString());
      if (replies.chunks()) {
        ByteBuf hole = Unpooled.buffer();
        encoder.putHole(hole, READ, READ.offset(), 1, false);
        assertEquals(encoder.holeBytes(), hole.readableBytes(), replies.toString());
      }
    }
  }

  @Test
  void piecesOutsideTheRequestAreOurBug() {
    ReplyEncoder encoder = new ReplyEncoder(ReplyMode.STRUCTURED);
    ByteBuf out = Unpooled.buffer();
    assertThrows(AssertionError.class, () -> encoder.putHole(out, READ, 0xfff, 1, true));
    assertThrows(AssertionError.class, () -> encoder.putHole(out, READ, 0x3000, 1, true));
    assertThrows(AssertionError.class, () -> encoder.putHole(out, READ, 0x2fff, 2, true));
    assertThrows(AssertionError.class, () -> encoder.putDataHeader(out, READ, 0x1000, 0, true));
    ReplyEncoder simple = new ReplyEncoder(ReplyMode.SIMPLE);
    assertThrows(AssertionError.class, () -> simple.putHole(out, READ, 0x1000, 1, true));
    assertThrows(
        AssertionError.class, () -> simple.putDataHeader(out, READ, 0x1000, 0x2000, false));
    assertThrows(AssertionError.class, () -> simple.putDataHeader(out, READ, 0x1000, 1, true));
    assertEquals(0, out.readableBytes());
  }

  @Test
  void errorsAreChunksWithText() {
    String tail = "00000005|0003|6f7570";
    check(
        "668e33ef|0001|8001|" + COOKIE + "|00000009|" + tail,
        ReplyMode.STRUCTURED,
        new Reply.Failed(READ, NbdError.EIO, "oup"));
    check(
        "668e33ef|0001|8001|" + COOKIE + "|00000009|" + tail,
        ReplyMode.STRUCTURED,
        new Reply.Failed(FLUSH, NbdError.EIO, "oup"));
    check(
        "6e8a278c|0001|8001|" + COOKIE + "|" + OFFSET + "|0000000000000009|" + tail,
        ReplyMode.EXTENDED,
        new Reply.Failed(WRITE, NbdError.EIO, "oup"));
  }

  @Test
  void errorsTellTheirOffset() {
    check(
        "668e33ef|0001|8002|" + COOKIE + "|00000011|00000005|0003|6f7570|0000000000002000",
        ReplyMode.STRUCTURED,
        new Reply.Failed(READ, NbdError.EIO, "oup", 0x2000));
    check(
        "6e8a278c|0001|8002|" + COOKIE + "|" + OFFSET + "|000000000000000e|0000001c|0000|" + OFFSET,
        ReplyMode.EXTENDED,
        new Reply.Failed(WRITE, NbdError.ENOSPC, "", 0x1000));
  }

  @Test
  void errorOffsetsOutsideTheRequestOrOfFlushesAreNotTold() {
    String general = "668e33ef|0001|8001|" + COOKIE + "|00000006|00000005|0000";
    for (long offset : new long[] {0xfff, 0x3000, -1, Long.MIN_VALUE}) {
      check(general, ReplyMode.STRUCTURED, new Reply.Failed(READ, NbdError.EIO, "", offset));
    }
    check(general, ReplyMode.STRUCTURED, new Reply.Failed(FLUSH, NbdError.EIO, "", 0));
    // A hostile request that ends at the very end of all numbers.
    Request.Read last = new Request.Read(0, READ.cookie(), -2, 2);
    check(general, ReplyMode.STRUCTURED, new Reply.Failed(last, NbdError.EIO, "", -1));
  }

  @Test
  void longTextsAreCutToWhatTheProtocolAllows() {
    ByteBuf out = Unpooled.buffer();
    new ReplyEncoder(ReplyMode.STRUCTURED)
        .put(out, new Reply.Failed(READ, NbdError.EIO, "x".repeat(5000)));
    assertEquals(20 + 6 + 4096, out.readableBytes());
    assertEquals(6 + 4096, out.getInt(16));
    assertEquals(4096, out.getUnsignedShort(24));
  }

  private static final Reply.Extents EXTENTS =
      new Reply.Extents(
          STATUS,
          List.of(
              new ContextExtents(1, List.of(new Extent(0x1000, 0), new Extent(0xffff0000L, 3))),
              new ContextExtents(7, List.of(new Extent(0x3000, 0xffff_ffffL)))));

  @Test
  void blockStatusIsOneChunkForEachContextAndTheLastIsDone() {
    check(
        "668e33ef|0000|0005|"
            + COOKIE
            + "|00000014|00000001|00001000|00000000|ffff0000|00000003"
            + "|668e33ef|0001|0005|"
            + COOKIE
            + "|0000000c|00000007|00003000|ffffffff",
        ReplyMode.STRUCTURED,
        EXTENTS);
  }

  @Test
  void extendedBlockStatusHas64BitsAndACount() {
    check(
        "6e8a278c|0000|0006|"
            + COOKIE
            + "|"
            + OFFSET
            + "|0000000000000028|00000001|00000002"
            + "|0000000000001000|0000000000000000|00000000ffff0000|0000000000000003"
            + "|6e8a278c|0001|0006|"
            + COOKIE
            + "|"
            + OFFSET
            + "|0000000000000018|00000007|00000001"
            + "|0000000000003000|00000000ffffffff",
        ReplyMode.EXTENDED,
        EXTENTS);
  }

  @Test
  void sizeOfBlockStatusIsKnownBeforehand() {
    for (ReplyMode replies : List.of(ReplyMode.STRUCTURED, ReplyMode.EXTENDED)) {
      ReplyEncoder encoder = new ReplyEncoder(replies);
      ByteBuf out = Unpooled.buffer();
      encoder.put(out, EXTENTS);
      assertEquals(encoder.bytesOf(EXTENTS), out.readableBytes(), replies.toString());
    }
  }

  @Test
  void whatNoReplyCanSayIsOurBug() {
    ByteBuf out = Unpooled.buffer();
    ReplyEncoder structured = new ReplyEncoder(ReplyMode.STRUCTURED);
    assertThrows(AssertionError.class, () -> structured.put(out, new Reply.Done(STATUS)));
    ReplyEncoder simple = new ReplyEncoder(ReplyMode.SIMPLE);
    assertThrows(AssertionError.class, () -> simple.put(out, EXTENTS));
    Reply tooLong =
        new Reply.Extents(STATUS, List.of(new ContextExtents(1, List.of(new Extent(1L << 32, 0)))));
    assertThrows(AssertionError.class, () -> structured.put(Unpooled.buffer(), tooLong));
  }
}
