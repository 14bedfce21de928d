package io.qnbd.it.conformance;

import io.qnbd.it.conformance.OptionReply.Context;
import java.io.IOException;
import java.util.List;

/** LIST_META_CONTEXT and SET_META_CONTEXT ("Metadata querying"). */
final class ContextCases {
  private static final String ROW = "1.2";
  private static final String BITMAP = Nbd.DIRTY + Bench.BITMAP;
  private static final String EMPTY_BITMAP = Nbd.DIRTY + Bench.EMPTY_BITMAP;

  private ContextCases() {}

  static void addTo(CaseList list) {
    beforeChunks(list);
    listing(list);
    selecting(list);
    forgetting(list);
  }

  private static void beforeChunks(CaseList list) {
    list.add(
        ROW,
        "LIST_META_CONTEXT before STRUCTURED_REPLY: answered or INVALID",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ =
                      haggling
                          .listContexts("pattern")
                          .mustEndWith(Nbd.REP_ACK, Nbd.ERR_INVALID, Nbd.ERR_EXT_HEADER_REQD);
                }));
    list.add(
        ROW,
        "SET_META_CONTEXT before STRUCTURED_REPLY: INVALID",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ =
                      haggling.setContexts("pattern", Nbd.ALLOCATION).mustEndWith(Nbd.ERR_INVALID);
                }));
  }

  /** A LIST_META_CONTEXT of the export must give exactly these names. */
  private static void lists(
      CaseList list, String title, String export, List<String> expected, String... queries) {
    list.chunked(
        ROW,
        "LIST_META_CONTEXT " + title,
        (bench, mode) ->
            bench
                .holding(export)
                .haggle(haggling -> {
                  Answer answer = haggling.agree(mode).listContexts(export, queries);
                  List<String> names = answer.mustAcknowledge().contextNames();
                  Check.that(names.equals(expected), "%s are listed", names);
                }));
  }

  private static void listing(CaseList list) {
    list.chunked(
        ROW,
        "LIST_META_CONTEXT without queries: all there are",
        (bench, mode) ->
            bench
                .readOnly()
                .haggle(haggling -> {
                  Answer answer = haggling.agree(mode).listContexts("bitmaps");
                  List<String> names = answer.mustAcknowledge().contextNames();
                  Check.that(names.contains(Nbd.ALLOCATION), "only %s", names);
                  Check.that(
                      names.contains(Nbd.DEPTH) || names.contains("qemu:"), "only %s", names);
                }));
    List<String> qemu = List.of(Nbd.DEPTH, BITMAP, EMPTY_BITMAP);
    List<String> bitmaps = List.of(BITMAP, EMPTY_BITMAP);
    lists(list, "base: is a wildcard", "pattern", List.of(Nbd.ALLOCATION), "base:");
    lists(list, "of a leaf: just that", "pattern", List.of(Nbd.ALLOCATION), Nbd.ALLOCATION);
    lists(list, "of an unknown leaf in base: nothing", "pattern", List.of(), "base:nosuch");
    lists(list, "of an unknown namespace: ignored", "pattern", List.of(), "x-nosuch:leaf");
    lists(
        list,
        "of one query twice: the context once",
        "pattern",
        List.of(Nbd.ALLOCATION),
        Nbd.ALLOCATION,
        Nbd.ALLOCATION,
        "base:");
    lists(list, "qemu: is a wildcard", "bitmaps", qemu, "qemu:");
    lists(list, "qemu:dirty-bitmap: is a wildcard", "bitmaps", bitmaps, Nbd.DIRTY);
    lists(list, "of one bitmap: just that", "bitmaps", List.of(BITMAP), BITMAP);
    lists(list, "of an unknown bitmap: nothing", "bitmaps", List.of(), Nbd.DIRTY + "nosuch");
    lists(list, "of bitmaps where there are none: nothing", "pattern", List.of(), Nbd.DIRTY);
    odd(list, Nbd.OPT_LIST_META_CONTEXT);
  }

  /** What both options may refuse, and must not fall over. */
  private static void odd(CaseList list, int option) {
    String name = Nbd.option(option);
    list.add(
        ROW,
        name + " of an unknown export: an error",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ = haggling.agree(Mode.STRUCTURED);
                  var _ =
                      haggling.ask(option, Haggling.queries("nobody", Nbd.ALLOCATION)).mustFail();
                }));
    oddQuery(list, option, "without colon", "allocation");
    oddQuery(list, option, "that is empty", "");
    oddQuery(list, option, "without namespace", ":allocation");
    oddQuery(list, option, "of 4097 bytes", "x-" + "n".repeat(4094) + ":");
    list.add(
        ROW,
        name + " with 2000 queries: answered or TOO_BIG",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ = haggling.agree(Mode.STRUCTURED);
                  String[] many = new String[2000];
                  for (int index = 0; index < many.length; index++) {
                    many[index] = index % 2 == 0 ? Nbd.ALLOCATION : "x-n" + index + ":leaf";
                  }
                  Answer answer = haggling.ask(option, Haggling.queries("pattern", many));
                  var _ = answer.mustEndWith(Nbd.REP_ACK, Nbd.ERR_TOO_BIG);
                  Check.that(
                      !answer.acknowledged() || answer.contexts().size() == 1,
                      "%d contexts",
                      answer.contexts().size());
                }));
  }

  private static void oddQuery(CaseList list, int option, String kind, String query) {
    list.add(
        ROW,
        "%s with a query %s: ignored or INVALID".formatted(Nbd.option(option), kind),
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ = haggling.agree(Mode.STRUCTURED);
                  Answer answer = haggling.ask(option, Haggling.queries("pattern", query));
                  var _ = answer.mustEndWith(Nbd.REP_ACK, Nbd.ERR_INVALID, Nbd.ERR_TOO_BIG);
                  Check.that(answer.contexts().isEmpty(), "%s", answer.contexts());
                }));
  }

  /** A SET_META_CONTEXT must select exactly these names. */
  private static void selects(
      CaseList list, String title, String export, List<String> expected, String... queries) {
    list.chunked(
        ROW,
        "SET_META_CONTEXT " + title,
        (bench, mode) ->
            bench
                .holding(export)
                .haggleToTheEnd(haggling -> {
                  Answer answer = haggling.agree(mode).setContexts(export, queries);
                  List<String> names = answer.mustAcknowledge().contextNames();
                  Check.that(names.equals(expected), "%s are selected", names);
                  Session session = haggling.go(export);
                  Reply reply = session.ask(Ask.status(0, 65536));
                  if (expected.isEmpty()) {
                    reply.mustFail(Nbd.EINVAL);
                  } else {
                    reply.mustSucceed(); // the checker expects a chunk for each
                  }
                  session.mustBeInStep();
                  session.leave();
                }));
  }

  private static void selecting(CaseList list) {
    List<String> allocation = List.of(Nbd.ALLOCATION);
    selects(list, "of base:allocation: its status", "pattern", allocation, Nbd.ALLOCATION);
    selects(list, "of qemu:allocation-depth: its status", "pattern", List.of(Nbd.DEPTH), Nbd.DEPTH);
    selects(list, "of a bitmap: its status", "bitmaps", List.of(BITMAP), BITMAP);
    selects(
        list,
        "of four at once: four statuses",
        "bitmaps",
        List.of(Nbd.ALLOCATION, Nbd.DEPTH, BITMAP, EMPTY_BITMAP),
        EMPTY_BITMAP,
        BITMAP,
        Nbd.DEPTH,
        Nbd.ALLOCATION);
    selects(list, "without queries: none", "pattern", List.of());
    selects(list, "of base: selects nothing", "pattern", List.of(), "base:");
    selects(list, "of an unknown leaf: ignored", "pattern", List.of(), "base:nosuch");
    selects(list, "of an unknown namespace: ignored", "pattern", List.of(), "x-nosuch:leaf");
    selects(
        list,
        "of known and unknown: the known one",
        "pattern",
        allocation,
        "x-nosuch:leaf",
        Nbd.ALLOCATION,
        "base:nosuch");
    selects(
        list,
        "of one query twice: one id, one status",
        "pattern",
        allocation,
        Nbd.ALLOCATION,
        Nbd.ALLOCATION);
    selects(list, "of an unknown bitmap: ignored", "bitmaps", List.of(), Nbd.DIRTY + "nosuch");
    odd(list, Nbd.OPT_SET_META_CONTEXT);
  }

  /** After {@code talk}, a session on the pattern must know of no context. */
  private static void forgets(CaseList list, String title, Forgetful talk) {
    list.chunked(
        "6.13",
        title,
        (bench, mode) ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  var _ = haggling.agree(mode);
                  var _ = haggling.setContexts("pattern", Nbd.ALLOCATION).mustAcknowledge();
                  talk.with(haggling);
                  Session session = haggling.go("pattern");
                  session.ask(Ask.status(0, 512)).mustFail(Nbd.EINVAL);
                  session.mustBeInStep();
                  session.leave();
                }));
  }

  private interface Forgetful {
    void with(Haggling haggling) throws IOException;
  }

  private static void forgetting(CaseList list) {
    forgets(
        list,
        "SET_META_CONTEXT again, for another export: dropped",
        haggling -> {
          var _ = haggling.setContexts("rw", Nbd.ALLOCATION).mustAcknowledge();
        });
    forgets(
        list,
        "SET_META_CONTEXT again, without queries: dropped",
        haggling -> {
          var _ = haggling.setContexts("pattern").mustAcknowledge();
        });
    forgets(
        list,
        "SET_META_CONTEXT again, that fails: dropped",
        haggling -> {
          byte[] lie = new Bytes().string("pattern").u32(1).u32(99).text("base:").array();
          var _ = haggling.ask(Nbd.OPT_SET_META_CONTEXT, lie).mustEndWith(Nbd.ERR_INVALID);
        });
    forgets(
        list,
        "SET_META_CONTEXT again, for an unknown export: dropped",
        haggling -> {
          var _ = haggling.setContexts("nobody", Nbd.ALLOCATION).mustFail();
        });
    list.chunked(
        "6.13",
        "SET_META_CONTEXT for one export, GO of another: dropped",
        (bench, mode) ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  var _ = haggling.agree(mode);
                  var _ = haggling.setContexts("rw", Nbd.ALLOCATION).mustAcknowledge();
                  Session session = haggling.go("pattern");
                  session.ask(Ask.status(0, 512)).mustFail(Nbd.EINVAL);
                  session.mustBeInStep();
                  session.leave();
                }));
    list.chunked(
        "6.13",
        "LIST_META_CONTEXT, INFO, LIST behind SET_META_CONTEXT: still selected",
        ContextCases::keeps);
    list.add(
        "6.13",
        "SET_META_CONTEXT, then EXPORT_NAME: still selected",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  var _ = haggling.agree(Mode.STRUCTURED);
                  var _ = haggling.setContexts("pattern", Nbd.ALLOCATION).mustAcknowledge();
                  Session session = haggling.exportName("pattern");
                  session.ask(Ask.status(0, 512)).mustSucceed();
                  session.leave();
                }));
  }

  private static void keeps(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .haggleToTheEnd(haggling -> {
          var _ = haggling.agree(mode);
          Answer set = haggling.setContexts("pattern", Nbd.ALLOCATION).mustAcknowledge();
          var _ = haggling.listContexts("rw", "qemu:").mustAcknowledge();
          var _ = haggling.info("rw").mustAcknowledge();
          var _ = haggling.ask(Nbd.OPT_LIST).mustAcknowledge();
          var _ = haggling.ask(Nbd.OPT_NOBODY_KNOWS).mustEndWith(Nbd.ERR_UNSUP);
          Session session = haggling.go("pattern");
          Reply reply = session.ask(Ask.status(0, 512)).mustSucceed();
          for (Context context : set.contexts()) {
            Check.that(reply.status.containsKey(context.id()), "%s is gone", context);
          }
          session.leave();
        });
  }
}
