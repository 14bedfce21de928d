package io.qnbd.protocol.handshake;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.OptionError;
import io.qnbd.protocol.OptionReply;
import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.TransmissionFlags;
import io.qnbd.protocol.handshake.Step.Next.Closing;
import io.qnbd.protocol.handshake.Step.Next.Negotiating;
import io.qnbd.protocol.handshake.Step.Next.Transmitting;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class HandshakeTest {
  private static final ExportInfo DISK =
      new ExportInfo("disk", "", 4096, TransmissionFlags.SEND_FLUSH, new BlockSizes(1, 4096, 8192));
  private static final ExportCatalog CATALOG =
      new ExportCatalog() {
        @Override
        public List<ExportInfo> list() {
          return List.of(DISK);
        }

        @Override
        public Lookup find(String name) {
          return name.equals("disk") ? new Lookup.Found(DISK) : new Lookup.Unknown();
        }
      };

  private static Handshake greeted(int flags) {
    Handshake handshake = new Handshake(CATALOG, TlsMode.OFF);
    assertInstanceOf(Negotiating.class, handshake.clientFlags(flags).next());
    return handshake;
  }

  @Test
  void unofferedClientFlagsClose() {
    for (int flags : new int[] {4, 7, 1 << 31, -1}) {
      Step step = new Handshake(CATALOG, TlsMode.OFF).clientFlags(flags);
      assertInstanceOf(Closing.class, step.next(), "flags " + flags);
      assertEquals(List.of(), step.replies());
    }
  }

  @Test
  void dfIsOfferedOnlyAfterStructuredReplies() {
    int flags = TransmissionFlags.HAS_FLAGS | TransmissionFlags.SEND_FLUSH;
    OptionRequest go = new OptionRequest.Details(true, "disk", Set.of());
    assertEquals(
        new OptionReply.InfoExport(OptionType.GO, 4096, flags),
        greeted(3).option(go).replies().getFirst());
    Handshake structured = greeted(3);
    var _ = structured.option(new OptionRequest.StructuredReplies());
    Step step = structured.option(go);
    assertEquals(
        new OptionReply.InfoExport(OptionType.GO, 4096, flags | TransmissionFlags.SEND_DF),
        step.replies().getFirst());
    assertEquals(
        new Transmitting(new Negotiated(DISK, ReplyMode.STRUCTURED, List.of())), step.next());
  }

  @Test
  void refusalsLeaveTheHandshakeOpen() {
    Handshake handshake = greeted(3);
    assertRefused(
        OptionError.UNKNOWN_EXPORT,
        handshake.option(new OptionRequest.Details(true, "disc", Set.of())));
    assertRefused(
        OptionError.UNKNOWN_EXPORT,
        handshake.option(new OptionRequest.Details(false, "", Set.of())));
    assertRefused(OptionError.UNSUPPORTED, handshake.option(new OptionRequest.Unknown(4)));
    assertRefused(OptionError.INVALID, handshake.option(new OptionRequest.Invalid(7, "short")));
    assertRefused(OptionError.TOO_BIG, handshake.option(new OptionRequest.TooBig(7, 70_000)));
    Step list = handshake.option(new OptionRequest.ListExports());
    assertEquals(2, list.replies().size());
  }

  private static void assertRefused(OptionError error, Step step) {
    assertInstanceOf(Negotiating.class, step.next());
    OptionReply.Refused refused =
        assertInstanceOf(OptionReply.Refused.class, step.replies().getFirst());
    assertEquals(error, refused.error());
  }

  @Test
  void whatExportNameCannotSayClosesInstead() {
    List<OptionRequest> bad =
        List.of(
            new OptionRequest.ExportName("disc"),
            new OptionRequest.Invalid(OptionType.EXPORT_NAME, "not a string"),
            new OptionRequest.TooBig(OptionType.EXPORT_NAME, 70_000));
    for (OptionRequest request : bad) {
      Step step = greeted(3).option(request);
      assertInstanceOf(Closing.class, step.next());
      assertEquals(List.of(), step.replies());
    }
  }

  @Test
  void takesNothingAfterItsEnd() {
    Handshake handshake = greeted(3);
    var _ = handshake.option(new OptionRequest.Abort());
    assertThrows(AssertionError.class, () -> handshake.option(new OptionRequest.ListExports()));
  }

  @Test
  void infoMayBeAskedForEveryExportOfTheLongestList() {
    Handshake handshake = greeted(3);
    for (int i = 0; i < 2048; i++) {
      assertInstanceOf(Negotiating.class, handshake.option(new OptionRequest.ListExports()).next());
    }
    assertInstanceOf(Closing.class, handshake.option(new OptionRequest.ListExports()).next());
  }
}
