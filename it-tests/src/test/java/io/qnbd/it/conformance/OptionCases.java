package io.qnbd.it.conformance;

import io.qnbd.it.conformance.OptionReply.Entry;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Each option in its place and with the replies that it may get ("Option types"). */
final class OptionCases {
  private static final String ROW = "1.2";

  private OptionCases() {}

  static void addTo(CaseList list) {
    exportName(list);
    endings(list);
    unknown(list);
    listing(list);
    details(list);
    infos(list);
    modes(list);
  }

  private static void exportName(CaseList list) {
    list.add(
        ROW, "EXPORT_NAME unknown: closed", bench -> exportNameCloses(bench.plain(), "nobody"));
    list.add(
        ROW,
        "EXPORT_NAME empty, no default export: closed",
        bench -> exportNameCloses(bench.readOnly(), ""));
    list.add(
        ROW,
        "EXPORT_NAME of 4097 bytes: closed",
        bench -> exportNameCloses(bench.plain(), "n".repeat(4097)));
    list.add(
        ROW, "EXPORT_NAME with NUL: closed", bench -> exportNameCloses(bench.plain(), "pattern\0"));
    list.add(
        ROW,
        "EXPORT_NAME empty: the default export",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  Session session = haggling.exportName("");
                  Check.that(session.bytes() == Bench.DEFAULT_BYTES, "another export");
                  session.mustBeInStep();
                  session.leave();
                }));
    list.add(
        ROW,
        "STRUCTURED_REPLY, then EXPORT_NAME: chunks",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  Session session = haggling.agree(Mode.STRUCTURED).exportName("pattern");
                  session.mustHold(0, bench.pattern(0, 4096));
                  session.leave();
                }));
    list.add(
        ROW,
        "unknown export refused by GO, then EXPORT_NAME: served",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  byte[] nobody = Haggling.details("nobody");
                  var _ = haggling.ask(Nbd.OPT_GO, nobody).mustEndWith(Nbd.ERR_UNKNOWN);
                  Session session = haggling.exportName("pattern");
                  session.mustBeInStep();
                  session.leave();
                }));
  }

  private static void exportNameCloses(Endpoint server, String name) throws IOException {
    server.haggleToTheEnd(haggling -> {
      byte[] data = new Bytes().text(name).array();
      haggling.peer().sendToWhomMayBeGone(Haggling.option(Nbd.OPT_EXPORT_NAME, data));
      haggling.peer().mustEnd();
    });
    server.haggle(_ -> {});
  }

  private static void endings(CaseList list) {
    list.add(ROW, "ABORT: ACK and closed", bench -> bench.plain().haggle(_ -> {}));
    list.add(
        ROW,
        "ABORT with data: ACK and closed",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  var _ = haggling.ask(Nbd.OPT_ABORT, new byte[100]).mustAcknowledge();
                  haggling.peer().mustEnd();
                }));
    list.add(
        ROW,
        "ABORT by a client that does not wait: no harm",
        bench -> {
          bench
              .plain()
              .haggleToTheEnd(haggling -> haggling.peer().send(Haggling.option(Nbd.OPT_ABORT)));
          bench.plain().haggle(_ -> {});
        });
    list.add(
        "6.1",
        "half-close behind an option: answered, then closed",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  haggling.peer().send(Haggling.option(Nbd.OPT_LIST));
                  haggling.peer().halfClose();
                  var _ = haggling.answer(Nbd.OPT_LIST).mustAcknowledge();
                  haggling.peer().mustEnd();
                }));
  }

  private static void unknown(CaseList list) {
    for (int option : new int[] {0, Nbd.OPT_PEEK_EXPORT, 12, 255, 0x7fffffff, -1, 0x80000001}) {
      String title = "%s: UNSUP".formatted(Nbd.option(option));
      list.add(ROW, title, bench -> unsupported(bench, option, 0));
    }
    int unknown = Nbd.OPT_NOBODY_KNOWS;
    list.add("6.4", "unknown option with 4 bytes: UNSUP", bench -> unsupported(bench, unknown, 4));
    list.add(
        "6.4", "unknown option with 1 MiB: UNSUP", bench -> unsupported(bench, unknown, 1 << 20));
    list.add(
        "6.4", "unknown option with 32 MiB: UNSUP", bench -> unsupported(bench, unknown, 32 << 20));
  }

  private static void unsupported(Bench bench, int option, int length) throws IOException {
    bench
        .plain()
        .haggle(haggling -> {
          var _ = haggling.ask(option, new byte[length]).mustEndWith(Nbd.ERR_UNSUP);
          var _ = haggling.info("pattern").mustAcknowledge();
        });
  }

  private static void listing(CaseList list) {
    list.add(
        ROW,
        "LIST: every export once, with its description",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  Answer first = haggling.ask(Nbd.OPT_LIST).mustAcknowledge();
                  List<String> names = first.exports().stream().map(Entry::name).sorted().toList();
                  Check.that(names.equals(Bench.PLAIN_EXPORTS), "%s are listed", names);
                  Answer second = haggling.ask(Nbd.OPT_LIST).mustAcknowledge();
                  Check.that(second.exports().equals(first.exports()), "another list at once");
                }));
    list.add(
        ROW,
        "LIST, then GO of each name that was listed: served",
        bench -> {
          for (String name : Bench.PLAIN_EXPORTS) {
            bench.plain().serve(Mode.SIMPLE, name, session -> session.mustBeInStep());
          }
        });
  }

  private static void details(CaseList list) {
    for (int option : new int[] {Nbd.OPT_INFO, Nbd.OPT_GO}) {
      String title = "%s of an unknown export: UNKNOWN, no information".formatted(name(option));
      list.add(
          ROW,
          title,
          bench ->
              bench
                  .plain()
                  .haggle(haggling -> {
                    byte[] data = Haggling.details("nobody", 0, 1, 2, 3);
                    var _ = haggling.ask(option, data).mustEndWith(Nbd.ERR_UNKNOWN);
                  }));
      list.add(
          ROW,
          name(option) + " of the default export where there is none: UNKNOWN",
          bench ->
              bench
                  .readOnly()
                  .haggle(haggling -> {
                    byte[] data = Haggling.details("");
                    var _ = haggling.ask(option, data).mustEndWith(Nbd.ERR_UNKNOWN);
                  }));
    }
  }

  private static void infos(CaseList list) {
    list.add(
        ROW,
        "INFO without requests: INFO_EXPORT, ACK",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  Answer answer = haggling.info("pattern").mustAcknowledge();
                  ByteBuffer export = infoOf(answer, Nbd.INFO_EXPORT);
                  Check.that(export.getLong() == Bench.PATTERN_BYTES, "another size");
                }));
    list.add(ROW, "INFO with all requests: all are given", OptionCases::allInfos);
    list.add(
        ROW,
        "INFO with unknown requests: ignored",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  Answer answer = haggling.info("pattern", 4, 99, 0x8000, 0xffff);
                  var _ = answer.mustAcknowledge();
                }));
    list.add(
        ROW,
        "INFO with 20000 requests: answered",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  int[] many = new int[20_000];
                  for (int index = 0; index < many.length; index++) {
                    many[index] = 1000 + index;
                  }
                  var _ =
                      haggling
                          .info("pattern", many)
                          .mustEndWith(Nbd.REP_ACK, Nbd.ERR_TOO_BIG, Nbd.ERR_INVALID);
                }));
    list.add(
        ROW,
        "INFO with one request twice: ACK or INVALID",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ =
                      haggling
                          .info("pattern", Nbd.INFO_NAME, Nbd.INFO_NAME)
                          .mustEndWith(Nbd.REP_ACK, Nbd.ERR_INVALID);
                }));
    list.add(ROW, "INFO of the default export: its canonical name", OptionCases::canonicalName);
    list.each("6.19", "INFO, then the same GO: the same information", OptionCases::infoThenGo);
    list.add(
        ROW,
        "GO by a client that wants zeroes: nothing behind the ACK",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.plain(), Nbd.FIXED_NEWSTYLE)) {
            Session session = haggling.go("pattern");
            session.mustBeInStep();
            session.leave();
          }
        });
    list.add(
        "1.9",
        "name with blanks and letters beyond ASCII: found",
        bench -> bench.plain().serve(Mode.SIMPLE, Bench.ODD_NAME, Session::mustBeInStep));
  }

  private static String name(int option) {
    return Nbd.option(option);
  }

  private static ByteBuffer infoOf(Answer answer, int kind) {
    ByteBuffer info = answer.infos().get(kind);
    if (info == null) {
      throw new AssertionError("information " + kind + " is missing: " + answer);
    }
    return info;
  }

  private static void allInfos(Bench bench) throws IOException {
    bench
        .plain()
        .haggle(haggling -> {
          Answer answer = haggling.info("pattern", 0, 1, 2, 3).mustAcknowledge();
          String name = Bytes.checkedText(infoOf(answer, Nbd.INFO_NAME), "the name");
          Check.that(name.equals("pattern"), "the name is %s", name);
          ByteBuffer sizes = infoOf(answer, Nbd.INFO_BLOCK_SIZE);
          Check.that(sizes.remaining() == 12, "%d bytes of sizes", sizes.remaining());
          ByteBuffer described = answer.infos().get(Nbd.INFO_DESCRIPTION);
          if (described != null) {
            String text = Bytes.checkedText(described, "the description");
            List<Entry> listed = haggling.ask(Nbd.OPT_LIST).mustAcknowledge().exports();
            Check.that(listed.contains(new Entry("pattern", text)), "LIST describes it otherwise");
          }
        });
  }

  private static void canonicalName(Bench bench) throws IOException {
    bench
        .plain()
        .haggle(haggling -> {
          Answer answer = haggling.info("", Nbd.INFO_NAME).mustAcknowledge();
          ByteBuffer given = answer.infos().get(Nbd.INFO_NAME);
          String name = given == null ? "" : Bytes.checkedText(given, "the name");
          List<Entry> listed = haggling.ask(Nbd.OPT_LIST).mustAcknowledge().exports();
          Check.that(
              listed.stream().anyMatch(entry -> entry.name().equals(name)),
              "%s is not listed",
              name);
        });
  }

  private static void infoThenGo(Bench bench, Mode mode) throws IOException {
    for (String name : List.of("rw", "pattern", "")) {
      bench
          .plain()
          .haggleToTheEnd(haggling -> {
            var _ = haggling.agree(mode);
            byte[] data = Haggling.details(name, 0, 1, 2, 3);
            Answer info = haggling.ask(Nbd.OPT_INFO, data).mustAcknowledge();
            Answer go = haggling.ask(Nbd.OPT_GO, data).mustAcknowledge();
            Map<Integer, ByteBuffer> told = new TreeMap<>(info.infos());
            Check.that(told.equals(go.infos()), "INFO and GO of '%s' differ", name);
          });
    }
  }

  private static void modes(CaseList list) {
    for (Mode mode : Mode.CHUNKED) {
      int option = mode == Mode.STRUCTURED ? Nbd.OPT_STRUCTURED_REPLY : Nbd.OPT_EXTENDED_HEADERS;
      list.add(
          ROW,
          name(option) + " twice: ACK or INVALID, and in force",
          bench ->
              bench
                  .plain()
                  .haggleToTheEnd(haggling -> {
                    var _ = haggling.agree(mode);
                    var _ = haggling.ask(option).mustEndWith(Nbd.REP_ACK, Nbd.ERR_INVALID);
                    Session session = haggling.go("pattern");
                    session.mustBeInStep();
                    session.leave();
                  }));
      list.add(
          ROW,
          name(option) + " with data: INVALID, and not in force",
          bench ->
              bench
                  .plain()
                  .haggleToTheEnd(haggling -> {
                    var _ = haggling.ask(option, new byte[8]).mustEndWith(Nbd.ERR_INVALID);
                    Session session = haggling.go("pattern"); // expects simple replies
                    session.mustBeInStep();
                    session.leave();
                  }));
    }
  }
}
