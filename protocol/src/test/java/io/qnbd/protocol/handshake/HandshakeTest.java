package io.qnbd.protocol.handshake;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.OptionError;
import io.qnbd.protocol.OptionReply;
import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.SelectedContext;
import io.qnbd.protocol.TransmissionFlags;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.handshake.Step.Next.Closing;
import io.qnbd.protocol.handshake.Step.Next.Negotiating;
import io.qnbd.protocol.handshake.Step.Next.StartingTls;
import io.qnbd.protocol.handshake.Step.Next.Transmitting;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

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

  private static final ExportInfo OTHER =
      new ExportInfo(
          "other",
          "another disk",
          8192,
          TransmissionFlags.SEND_FLUSH,
          new BlockSizes(1, 4096, 8192),
          List.of(
              "base:allocation",
              "qemu:allocation-depth",
              "qemu:dirty-bitmap:one",
              "qemu:dirty-bitmap:two"));

  /** The disk, another with contexts that is the default, and one for each way to say no. */
  private static final class Catalog implements ExportCatalog {
    @Nullable ExportInfo replacement;
    final List<String> chosen = new ArrayList<>();

    @Override
    public Lookup choose(String name) {
      chosen.add(name);
      return find(name);
    }

    @Override
    public List<ExportInfo> list() {
      return List.of(DISK, OTHER);
    }

    @Override
    public Lookup find(String name) {
      return switch (name) {
        case "disk" -> new Lookup.Found(DISK);
        case "", "other" -> new Lookup.Found(replacement == null ? OTHER : replacement);
        case "secret" -> new Lookup.TlsRequired();
        case "private" -> new Lookup.Refused("not for you");
        case "ending" -> new Lookup.ShuttingDown();
        default -> new Lookup.Unknown();
      };
    }
  }

  private static Handshake greeted(TlsMode tls) {
    Handshake handshake = new Handshake(new Catalog(), tls);
    assertInstanceOf(Negotiating.class, handshake.clientFlags(3).next());
    return handshake;
  }

  private static Handshake agreed(ReplyMode replies) {
    Handshake handshake = greeted(TlsMode.OFF);
    agree(handshake, replies);
    return handshake;
  }

  private static void agree(Handshake handshake, ReplyMode replies) {
    switch (replies) {
      case SIMPLE -> {}
      case STRUCTURED -> assertAcked(handshake.option(new OptionRequest.StructuredReplies()));
      case EXTENDED -> assertAcked(handshake.option(new OptionRequest.ExtendedHeaders()));
    }
  }

  private static OptionRequest go(String name) {
    return new OptionRequest.Details(true, name, Set.of());
  }

  private static OptionRequest info(String name) {
    return new OptionRequest.Details(false, name, Set.of());
  }

  private static OptionRequest set(String export, String... queries) {
    return new OptionRequest.MetaContexts(true, export, List.of(queries));
  }

  private static OptionRequest list(String export, String... queries) {
    return new OptionRequest.MetaContexts(false, export, List.of(queries));
  }

  private static void assertAcked(Step step) {
    assertInstanceOf(Negotiating.class, step.next());
    assertInstanceOf(OptionReply.Ack.class, step.replies().getLast());
  }

  private static Negotiated negotiated(Step step) {
    return assertInstanceOf(Transmitting.class, step.next()).negotiated();
  }

  private static int flags(Step step) {
    return step.replies().stream()
        .filter(OptionReply.InfoExport.class::isInstance)
        .map(OptionReply.InfoExport.class::cast)
        .findFirst()
        .orElseThrow()
        .transmissionFlags();
  }

  private static List<OptionReply.MetaContext> contexts(Step step) {
    assertAcked(step);
    return step.replies().stream()
        .filter(OptionReply.MetaContext.class::isInstance)
        .map(OptionReply.MetaContext.class::cast)
        .toList();
  }

  private static List<String> names(Step step) {
    return contexts(step).stream().map(OptionReply.MetaContext::name).toList();
  }

  private static void assertClosed(Step step) {
    assertInstanceOf(Closing.class, step.next());
    assertEquals(List.of(), step.replies());
  }

  // Modes of reply.

  @Test
  void extendedHeadersNeedNoStructuredReplies() {
    assertEquals(
        ReplyMode.EXTENDED, negotiated(agreed(ReplyMode.EXTENDED).option(go("disk"))).replies());
  }

  @Test
  void extendedHeadersWinOverStructuredReplies() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    agree(handshake, ReplyMode.EXTENDED);
    assertEquals(ReplyMode.EXTENDED, negotiated(handshake.option(go("disk"))).replies());
  }

  @Test
  void structuredRepliesAfterExtendedHeadersAreRefusedAndChangeNothing() {
    Handshake handshake = agreed(ReplyMode.EXTENDED);
    assertRefused(
        OptionError.EXTENDED_HEADERS_REQUIRED,
        handshake.option(new OptionRequest.StructuredReplies()));
    agree(handshake, ReplyMode.EXTENDED);
    assertEquals(ReplyMode.EXTENDED, negotiated(handshake.option(go("disk"))).replies());
  }

  @Test
  void exportNameAfterExtendedHeadersCloses() {
    assertClosed(agreed(ReplyMode.EXTENDED).option(new OptionRequest.ExportName("disk")));
  }

  @Test
  void exportNameTakesStructuredRepliesAndContextsAlong() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    assertAcked(handshake.option(set("other", "base:allocation")));
    Negotiated negotiated = negotiated(handshake.option(new OptionRequest.ExportName("other")));
    assertEquals(ReplyMode.STRUCTURED, negotiated.replies());
    assertEquals(1, negotiated.contexts().size());
  }

  @Test
  void dfAndStatusPayloadAreOfferedWhereTheyWork() {
    int plain = TransmissionFlags.HAS_FLAGS | TransmissionFlags.SEND_FLUSH;
    int df = plain | TransmissionFlags.SEND_DF;
    assertEquals(plain, flags(agreed(ReplyMode.SIMPLE).option(info("other"))));
    assertEquals(df, flags(agreed(ReplyMode.EXTENDED).option(info("other"))));
    Handshake structured = agreed(ReplyMode.STRUCTURED);
    assertAcked(structured.option(set("other", "base:allocation")));
    assertEquals(df, flags(structured.option(go("other"))));
    Handshake extended = agreed(ReplyMode.EXTENDED);
    assertAcked(extended.option(set("other", "base:allocation")));
    assertEquals(df, flags(extended.option(info("disk"))), "its contexts were not selected");
    assertEquals(df | TransmissionFlags.BLOCK_STATUS_PAYLOAD, flags(extended.option(go("other"))));
  }

  @Test
  void goSaysWhatInfoSaid() {
    for (ReplyMode replies : ReplyMode.values()) {
      Handshake handshake = agreed(replies);
      if (replies.chunks()) {
        assertAcked(handshake.option(set("", "base:allocation")));
      }
      Set<Integer> wanted = Set.of(0, 1, 2, 3, 999);
      List<String> info = texts(handshake, new OptionRequest.Details(false, "", wanted));
      assertEquals(info, texts(handshake, new OptionRequest.Details(true, "", wanted)));
      assertEquals(5, info.size(), "four kinds of information and an ACK");
    }
  }

  private static List<String> texts(Handshake handshake, OptionRequest.Details details) {
    return handshake.option(details).replies().stream()
        .map(reply -> reply.toString().replaceFirst("option=[67]", "option"))
        .toList();
  }

  @Test
  void nameInformationIsTheCanonicalName() {
    Step step = greeted(TlsMode.OFF).option(new OptionRequest.Details(true, "", Set.of(1)));
    assertEquals(new OptionReply.InfoName(OptionType.GO, "other"), step.replies().get(1));
    assertEquals("other", negotiated(step).export().name());
  }

  @Test
  void placeIsTakenOnlyByWhatEntersTransmission() {
    Catalog catalog = new Catalog();
    Handshake handshake = new Handshake(catalog, TlsMode.OFF);
    var _ = handshake.clientFlags(3);
    agree(handshake, ReplyMode.STRUCTURED);
    for (OptionRequest request :
        List.of(info("disk"), list("disk"), set("disk"), new OptionRequest.ListExports())) {
      assertAcked(handshake.option(request));
    }
    assertEquals(List.of(), catalog.chosen);
    var _ = handshake.option(go("disk"));
    assertEquals(List.of("disk"), catalog.chosen);
    Handshake old = new Handshake(catalog, TlsMode.OFF);
    var _ = old.clientFlags(0);
    var _ = old.option(new OptionRequest.ExportName("other"));
    assertEquals(List.of("disk", "other"), catalog.chosen);
  }

  // Metadata contexts.

  @Test
  void listWithoutQueriesTellsAllContexts() {
    Step step = agreed(ReplyMode.STRUCTURED).option(list("other"));
    assertEquals(OTHER.metaContexts(), names(step));
    assertTrue(contexts(step).stream().allMatch(context -> context.id() == 0));
    assertEquals(List.of(), names(agreed(ReplyMode.STRUCTURED).option(list("disk"))));
  }

  @Test
  void listKnowsWildcardsAndExactNames() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    List<String> all = OTHER.metaContexts();
    assertEquals(all.subList(0, 1), names(handshake.option(list("other", "base:"))));
    assertEquals(all.subList(1, 4), names(handshake.option(list("other", "qemu:"))));
    assertEquals(all.subList(2, 4), names(handshake.option(list("other", "qemu:dirty-bitmap:"))));
    assertEquals(
        all.subList(2, 3), names(handshake.option(list("other", "qemu:dirty-bitmap:one"))));
    assertEquals(
        all, names(handshake.option(list("", "qemu:", "base:", "base:allocation", "qemu:"))));
  }

  @Test
  void whatIsUnknownIsIgnoredInLists() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    for (String query :
        List.of(
            "x-other:thing",
            "nbd-server:",
            "base:allocatio",
            "base:nothing",
            "qemu:dirty-bitmap",
            "qemu:dirty-bitmap:o",
            "qemu:dirty-bitmap:one:",
            "Base:allocation")) {
      assertEquals(List.of(), names(handshake.option(list("other", query))), query);
      assertEquals(List.of(), names(handshake.option(set("other", query))), query);
    }
  }

  @Test
  void queriesWithoutNamespaceAreInvalid() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    for (String query : List.of("", "base", "base-allocation", ":", ":allocation")) {
      assertRefused(OptionError.INVALID, handshake.option(list("other", query)));
      assertRefused(OptionError.INVALID, handshake.option(set("other", "base:allocation", query)));
    }
  }

  @Test
  void contextsOfExportsThatMayNotBeUsedAreNotTold() {
    for (TlsMode tls : new TlsMode[] {TlsMode.OFF, TlsMode.OPTIONAL}) {
      Handshake handshake = greeted(tls);
      agree(handshake, ReplyMode.STRUCTURED);
      assertRefused(OptionError.UNKNOWN_EXPORT, handshake.option(list("nothing")));
      assertRefused(OptionError.UNKNOWN_EXPORT, handshake.option(set("nothing", "base:x")));
      // The protocol has TLS_REQUIRED for INFO and GO alone in these modes.
      assertRefused(OptionError.POLICY, handshake.option(list("secret")));
      assertRefused(OptionError.POLICY, handshake.option(set("secret", "base:x")));
      assertRefused(OptionError.POLICY, handshake.option(set("private", "base:x")));
      assertRefused(OptionError.SHUTDOWN, handshake.option(set("ending", "base:x")));
    }
  }

  @Test
  void selectingNeedsChunksAndListingDoesNot() {
    Handshake handshake = agreed(ReplyMode.SIMPLE);
    assertRefused(OptionError.INVALID, handshake.option(set("other", "base:allocation")));
    assertRefused(OptionError.INVALID, handshake.option(set("other")));
    assertEquals(1, names(handshake.option(list("other", "base:"))).size());
    for (ReplyMode replies : List.of(ReplyMode.STRUCTURED, ReplyMode.EXTENDED)) {
      assertEquals(1, names(agreed(replies).option(set("other", "base:allocation"))).size());
    }
  }

  @Test
  void selectsWhatIsNamedExactlyAndOnce() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    Step step =
        handshake.option(
            set(
                "other",
                "qemu:dirty-bitmap:two",
                "base:allocation",
                "base:allocation",
                "x-other:thing"));
    List<OptionReply.MetaContext> told = contexts(step);
    assertEquals(Set.of("base:allocation", "qemu:dirty-bitmap:two"), Set.copyOf(names(step)));
    assertEquals(2, told.size(), "a doubled query selects once");
    assertNotEquals(told.get(0).id(), told.get(1).id());
    List<SelectedContext> selected =
        told.stream().map(context -> new SelectedContext(context.id(), context.name())).toList();
    assertEquals(selected, negotiated(handshake.option(go("other"))).contexts());
  }

  @Test
  void wildcardsAndNoQueriesSelectNothing() {
    for (OptionRequest request :
        List.of(
            set("other"),
            set("other", "base:"),
            set("other", "qemu:", "base:", "qemu:dirty-bitmap:"))) {
      Handshake handshake = agreed(ReplyMode.STRUCTURED);
      assertEquals(List.of(), names(handshake.option(request)));
      assertEquals(List.of(), negotiated(handshake.option(go("other"))).contexts());
    }
  }

  @Test
  void eachSelectionReplacesTheOneBeforeAlsoWhenItFails() {
    List<OptionRequest> others =
        List.of(
            set("other"),
            set("disk", "base:allocation"),
            set("nothing", "base:allocation"),
            set("secret", "base:allocation"),
            set("other", "base"),
            new OptionRequest.Invalid(OptionType.SET_META_CONTEXT, "lying length"),
            new OptionRequest.TooBig(OptionType.SET_META_CONTEXT, 1 << 20));
    for (OptionRequest later : others) {
      Handshake handshake = agreed(ReplyMode.STRUCTURED);
      assertAcked(handshake.option(set("other", "base:allocation")));
      var _ = handshake.option(later);
      assertEquals(
          List.of(), negotiated(handshake.option(go("other"))).contexts(), later.toString());
    }
  }

  @Test
  void otherOptionsLeaveTheSelectionAlone() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    assertAcked(handshake.option(set("other", "base:allocation")));
    assertAcked(handshake.option(list("disk")));
    assertAcked(handshake.option(info("disk")));
    assertAcked(handshake.option(new OptionRequest.ListExports()));
    assertRefused(OptionError.UNKNOWN_EXPORT, handshake.option(go("nothing")));
    assertRefused(
        OptionError.INVALID,
        handshake.option(new OptionRequest.Invalid(OptionType.LIST_META_CONTEXT, "")));
    agree(handshake, ReplyMode.EXTENDED);
    assertEquals(1, negotiated(handshake.option(go("other"))).contexts().size());
  }

  @Test
  void selectionCountsForItsExportOnly() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    assertAcked(handshake.option(set("other", "base:allocation")));
    assertEquals(List.of(), negotiated(handshake.option(go("disk"))).contexts());
  }

  @Test
  void defaultExportIsTheSameByItsOwnName() {
    Handshake byName = agreed(ReplyMode.STRUCTURED);
    assertAcked(byName.option(set("", "base:allocation")));
    assertEquals(1, negotiated(byName.option(go("other"))).contexts().size());
    Handshake byDefault = agreed(ReplyMode.STRUCTURED);
    assertAcked(byDefault.option(set("other", "base:allocation")));
    assertEquals(1, negotiated(byDefault.option(go(""))).contexts().size());
  }

  @Test
  void selectionIsLostWithTheContextItself() {
    Catalog catalog = new Catalog();
    Handshake handshake = new Handshake(catalog, TlsMode.OFF);
    var _ = handshake.clientFlags(3);
    agree(handshake, ReplyMode.STRUCTURED);
    assertAcked(handshake.option(set("other", "base:allocation", "qemu:dirty-bitmap:one")));
    catalog.replacement =
        new ExportInfo("other", "", 8192, 0, OTHER.blockSizes(), List.of("base:allocation"));
    assertEquals(List.of(), negotiated(handshake.option(go("other"))).contexts());
  }

  @Test
  void contextIdsAreNeverUsedTwice() {
    Handshake handshake = agreed(ReplyMode.STRUCTURED);
    Set<Integer> ids = new HashSet<>();
    for (int i = 0; i < 20; i++) {
      for (OptionReply.MetaContext context :
          contexts(handshake.option(set("other", "base:allocation", "qemu:allocation-depth")))) {
        assertTrue(context.id() != 0 && ids.add(context.id()), context.toString());
      }
    }
    assertEquals(40, ids.size());
  }

  @Test
  void moreContextsThanMayBeSelectedAreTooBigAndStillListed() {
    List<String> bitmaps = new ArrayList<>();
    for (int i = 0; i <= WireLimits.CONTEXTS_MAX; i++) {
      bitmaps.add("qemu:dirty-bitmap:" + i);
    }
    Catalog catalog = new Catalog();
    catalog.replacement = new ExportInfo("other", "", 8192, 0, OTHER.blockSizes(), bitmaps);
    Handshake handshake = new Handshake(catalog, TlsMode.OFF);
    var _ = handshake.clientFlags(3);
    agree(handshake, ReplyMode.STRUCTURED);
    assertEquals(bitmaps, names(handshake.option(list("other"))));
    String[] queries = bitmaps.toArray(String[]::new);
    assertRefused(OptionError.TOO_BIG, handshake.option(set("other", queries)));
    String[] fewer = Arrays.copyOf(queries, WireLimits.CONTEXTS_MAX);
    assertEquals(List.of(fewer), names(handshake.option(set("other", fewer))));
  }

  // TLS.

  private static final OptionRequest STARTTLS = new OptionRequest.StartTls();

  private static void startTls(Handshake handshake) {
    assertEquals(
        new Step(List.of(new OptionReply.Ack(OptionType.STARTTLS)), new StartingTls()),
        handshake.option(STARTTLS));
    handshake.tlsEstablished();
  }

  @Test
  void withoutTlsStartTlsIsRefusedAndTlsNeverAskedFor() {
    Handshake handshake = greeted(TlsMode.OFF);
    assertRefused(OptionError.POLICY, handshake.option(STARTTLS));
    assertRefused(OptionError.POLICY, handshake.option(go("secret")));
    assertInstanceOf(Transmitting.class, handshake.option(go("disk")).next());
  }

  @Test
  void optionalTlsIsAskedForWhereAnExportNeedsIt() {
    Handshake handshake = greeted(TlsMode.OPTIONAL);
    assertRefused(OptionError.TLS_REQUIRED, handshake.option(info("secret")));
    assertRefused(OptionError.TLS_REQUIRED, handshake.option(go("secret")));
    assertRefused(OptionError.UNKNOWN_EXPORT, handshake.option(go("nothing")));
    assertAcked(handshake.option(new OptionRequest.ListExports()));
    assertInstanceOf(Transmitting.class, handshake.option(go("disk")).next());
    assertClosed(greeted(TlsMode.OPTIONAL).option(new OptionRequest.ExportName("secret")));
  }

  @Test
  void requiredTlsIsAskedForByEveryOption() {
    List<OptionRequest> requests =
        List.of(
            new OptionRequest.ListExports(),
            info("disk"),
            go("disk"),
            go("nothing"),
            go("secret"),
            new OptionRequest.StructuredReplies(),
            new OptionRequest.ExtendedHeaders(),
            list("disk"),
            set("disk", "base:allocation"),
            new OptionRequest.Unknown(4),
            new OptionRequest.Unknown(77),
            new OptionRequest.Invalid(OptionType.GO, "lying length"),
            new OptionRequest.TooBig(OptionType.INFO, 1 << 20));
    Handshake handshake = greeted(TlsMode.REQUIRED);
    for (OptionRequest request : requests) {
      assertRefused(OptionError.TLS_REQUIRED, handshake.option(request));
    }
    assertClosed(greeted(TlsMode.REQUIRED).option(new OptionRequest.ExportName("disk")));
    Step abort = handshake.option(new OptionRequest.Abort());
    assertEquals(List.of(new OptionReply.Ack(OptionType.ABORT)), abort.replies());
  }

  @Test
  void requiredTlsIsNotAskedForOnceItIsThere() {
    Handshake handshake = greeted(TlsMode.REQUIRED);
    startTls(handshake);
    assertAcked(handshake.option(new OptionRequest.ListExports()));
    assertRefused(OptionError.POLICY, handshake.option(go("secret")));
    assertRefused(OptionError.UNSUPPORTED, handshake.option(new OptionRequest.Unknown(77)));
    assertInstanceOf(
        Transmitting.class, handshake.option(new OptionRequest.ExportName("disk")).next());
  }

  @Test
  void clientWithoutFixedNewstyleGetsNothingWhereTlsIsRequired() {
    Handshake handshake = new Handshake(new Catalog(), TlsMode.REQUIRED);
    var _ = handshake.clientFlags(0);
    assertClosed(handshake.option(new OptionRequest.ExportName("disk")));
  }

  @Test
  void startTlsWithDataOrForTheSecondTimeIsInvalid() {
    for (TlsMode tls : List.of(TlsMode.OPTIONAL, TlsMode.REQUIRED)) {
      Handshake handshake = greeted(tls);
      assertRefused(
          OptionError.INVALID,
          handshake.option(new OptionRequest.Invalid(OptionType.STARTTLS, "4 bytes of data")));
      startTls(handshake);
      assertRefused(OptionError.INVALID, handshake.option(STARTTLS));
      assertInstanceOf(Transmitting.class, handshake.option(go("disk")).next());
    }
  }

  @Test
  void startTlsForgetsRepliesAndContexts() {
    for (ReplyMode before : List.of(ReplyMode.STRUCTURED, ReplyMode.EXTENDED)) {
      Handshake handshake = greeted(TlsMode.OPTIONAL);
      agree(handshake, before);
      assertAcked(handshake.option(set("other", "base:allocation")));
      startTls(handshake);
      assertRefused(OptionError.INVALID, handshake.option(set("other", "base:allocation")));
      // Nor is the selection there again when only the mode of reply is.
      agree(handshake, ReplyMode.STRUCTURED);
      assertEquals(
          new Negotiated(OTHER, ReplyMode.STRUCTURED, List.of()),
          negotiated(handshake.option(go("other"))));
    }
  }

  @Test
  void nothingIsTakenBetweenStartTlsAndItsSuccess() {
    Handshake handshake = greeted(TlsMode.OPTIONAL);
    var _ = handshake.option(STARTTLS);
    assertThrows(AssertionError.class, () -> handshake.option(new OptionRequest.ListExports()));
    handshake.tlsEstablished();
    assertAcked(handshake.option(new OptionRequest.ListExports()));
    assertThrows(AssertionError.class, handshake::tlsEstablished);
  }

  // The end, and clients of old.

  @Test
  void afterShutDownEveryOptionButAbortIsRefused() {
    List<OptionRequest> requests =
        List.of(
            new OptionRequest.ListExports(),
            info("disk"),
            go("disk"),
            new OptionRequest.StructuredReplies(),
            new OptionRequest.ExtendedHeaders(),
            list("disk"),
            set("disk"),
            STARTTLS,
            new OptionRequest.Unknown(77),
            new OptionRequest.Invalid(OptionType.GO, "lying length"));
    for (TlsMode tls : TlsMode.values()) {
      Handshake handshake = greeted(tls);
      handshake.shutDown();
      for (OptionRequest request : requests) {
        assertRefused(OptionError.SHUTDOWN, handshake.option(request));
      }
      Step abort = handshake.option(new OptionRequest.Abort());
      assertEquals(List.of(new OptionReply.Ack(OptionType.ABORT)), abort.replies());
      Handshake old = greeted(tls);
      old.shutDown();
      assertClosed(old.option(new OptionRequest.ExportName("disk")));
    }
  }

  @Test
  void catalogMayShutDownAndRefuse() {
    Handshake handshake = greeted(TlsMode.OFF);
    assertRefused(OptionError.SHUTDOWN, handshake.option(go("ending")));
    assertEquals(
        List.of(new OptionReply.Refused(OptionType.GO, OptionError.POLICY, "not for you")),
        handshake.option(go("private")).replies());
    for (String name : List.of("ending", "private", "nothing")) {
      assertClosed(greeted(TlsMode.OFF).option(new OptionRequest.ExportName(name)));
    }
  }

  @Test
  void withoutFixedNewstyleOnlyExportNameIsTaken() {
    for (OptionRequest request :
        List.of(new OptionRequest.ListExports(), go("disk"), STARTTLS, new OptionRequest.Abort())) {
      assertClosed(greeted(2).option(request));
    }
    Step step = greeted(0).option(new OptionRequest.ExportName("disk"));
    assertEquals(
        List.of(new OptionReply.ExportChosen(4096, DISK.transmissionFlags(), true)),
        step.replies());
    assertEquals(new Negotiated(DISK, ReplyMode.SIMPLE, List.of()), negotiated(step));
  }

  /** What a handshake should know, kept in the plainest way. */
  private static final class Model {
    ReplyMode replies = ReplyMode.SIMPLE;
    boolean encrypted;
    String export = "";
    Set<String> contexts = Set.of();

    void select(String name, List<String> queries) {
      export = "";
      contexts = Set.of();
      boolean wellFormed = queries.stream().allMatch(query -> query.indexOf(':') > 0);
      String canonical = name.isEmpty() ? "other" : name;
      if (replies.chunks() && wellFormed && Set.of("disk", "other").contains(canonical)) {
        export = canonical;
        contexts = new HashSet<>(canonical.equals("other") ? OTHER.metaContexts() : List.of());
        contexts.retainAll(queries);
      }
    }

    void structured() {
      replies = replies == ReplyMode.EXTENDED ? replies : ReplyMode.STRUCTURED;
    }

    void tls() {
      encrypted = true;
      replies = ReplyMode.SIMPLE;
      contexts = Set.of();
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6})
  void agreesWithAPlainModelWhateverTheOrderOfOptions(long seed) {
    Random random = new Random(seed);
    List<String> exports = List.of("disk", "other", "", "secret", "private", "nothing");
    List<String> queries =
        List.of(
            "base:allocation",
            "qemu:allocation-depth",
            "qemu:dirty-bitmap:two",
            "qemu:",
            "x-other:thing",
            "base");
    for (int i = 0; i < 2000; i++) {
      Handshake handshake = greeted(TlsMode.OPTIONAL);
      Model model = new Model();
      for (int steps = random.nextInt(12); steps > 0; steps--) {
        String export = exports.get(random.nextInt(random.nextBoolean() ? 3 : exports.size()));
        switch (random.nextInt(7)) {
          case 0 -> {
            model.structured();
            var _ = handshake.option(new OptionRequest.StructuredReplies());
          }
          case 1 -> {
            model.replies = ReplyMode.EXTENDED;
            var _ = handshake.option(new OptionRequest.ExtendedHeaders());
          }
          case 2 -> {
            Step step = handshake.option(STARTTLS);
            assertEquals(!model.encrypted, step.next() instanceof StartingTls);
            if (!model.encrypted) {
              model.tls();
              handshake.tlsEstablished();
            }
          }
          case 3 -> {
            var _ = handshake.option(random.nextBoolean() ? info(export) : list(export));
          }
          default -> {
            List<String> some = new ArrayList<>(queries.subList(0, random.nextInt(7)));
            Collections.shuffle(some, random);
            some = some.subList(0, some.size() / 2);
            model.select(export, some);
            var _ = handshake.option(new OptionRequest.MetaContexts(true, export, some));
          }
        }
      }
      ExportInfo chosen = random.nextBoolean() ? OTHER : DISK;
      Negotiated negotiated = negotiated(handshake.option(go(chosen.name())));
      String step = "seed " + seed + ", step " + i;
      assertEquals(model.replies, negotiated.replies(), step);
      List<String> selected =
          negotiated.contexts().stream().map(SelectedContext::name).sorted().toList();
      Set<String> expected = model.export.equals(chosen.name()) ? model.contexts : Set.of();
      assertEquals(expected.stream().sorted().toList(), selected, step);
    }
  }
}
