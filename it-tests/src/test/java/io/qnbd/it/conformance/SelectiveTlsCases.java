package io.qnbd.it.conformance;

import io.qnbd.it.conformance.OptionReply.Entry;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;

/** TLS that is there for whoever wants it, and must for one export ("SELECTIVETLS mode"). */
final class SelectiveTlsCases {
  private static final String ROW = "1.8";

  private SelectiveTlsCases() {}

  static void addTo(CaseList list) {
    inClear(list);
    locked(list);
    list.add(
        ROW,
        "optional: TLS_REQD, then STARTTLS, then the locked export",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
            var _ = haggling.info("locked").mustEndWith(Nbd.ERR_TLS_REQD);
            Session session = haggling.startTls(bench.tls()).go("locked");
            session.mustBeInStep();
            session.leave();
          }
        });
    list.add(
        ROW,
        "optional: TLS_REQD, then an open export in clear",
        bench ->
            bench
                .tlsOptional()
                .haggleToTheEnd(haggling -> {
                  byte[] data = Haggling.details("locked");
                  var _ = haggling.ask(Nbd.OPT_GO, data).mustEndWith(Nbd.ERR_TLS_REQD);
                  Session session = haggling.go("disk");
                  session.mustBeInStep();
                  session.leave();
                }));
    list.each(ROW, "optional: the locked export in TLS is served", SelectiveTlsCases::unlocked);
    list.add(
        ROW,
        "optional: LIST in TLS tells of the locked export",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
            Answer answer = haggling.startTls(bench.tls()).ask(Nbd.OPT_LIST).mustAcknowledge();
            List<String> names = answer.exports().stream().map(Entry::name).sorted().toList();
            Check.that(names.equals(List.of(Bench.SLASHED_NAME, "disk", "locked")), "%s", names);
            haggling.leave();
          }
        });
    list.add(
        "1.9",
        "name that begins with a slash: found",
        bench -> bench.tlsOptional().serve(Mode.SIMPLE, Bench.SLASHED_NAME, Session::mustBeInStep));
    list.add("1.2", "description: the same in LIST and INFO", SelectiveTlsCases::described);
    list.add(
        "6.14",
        "optional: second STARTTLS: INVALID",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
            Answer answer = haggling.startTls(bench.tls()).ask(Nbd.OPT_STARTTLS);
            var _ = answer.mustEndWith(Nbd.ERR_INVALID);
            haggling.leave();
          }
        });
  }

  private static void inClear(CaseList list) {
    list.each(
        ROW,
        "optional: an open export is served in clear",
        (bench, mode) ->
            bench.tlsOptional().serve(mode, "disk", session -> session.mustHold(0, new byte[9])));
    list.add(
        ROW,
        "optional: EXPORT_NAME of an open export in clear is served",
        bench ->
            bench
                .tlsOptional()
                .haggleToTheEnd(haggling -> {
                  Session session = haggling.exportName("disk");
                  session.mustBeInStep();
                  session.leave();
                }));
    list.add(
        ROW,
        "optional: an unknown export in clear is UNKNOWN or TLS_REQD",
        bench ->
            bench
                .tlsOptional()
                .haggle(haggling -> {
                  Answer answer = haggling.info("nobody");
                  var _ = answer.mustEndWith(Nbd.ERR_UNKNOWN, Nbd.ERR_TLS_REQD);
                  Check.that(answer.infos().isEmpty(), "information about nobody");
                }));
    list.add(
        ROW,
        "optional: LIST in clear shows open exports, perhaps the locked one",
        bench ->
            bench
                .tlsOptional()
                .haggle(haggling -> {
                  Answer answer = haggling.ask(Nbd.OPT_LIST).mustAcknowledge();
                  List<String> names = answer.exports().stream().map(Entry::name).toList();
                  Check.that(names.contains("disk"), "only %s", names);
                }));
    list.add(
        ROW,
        "optional: no option but INFO and GO is TLS_REQD",
        bench ->
            bench
                .tlsOptional()
                .haggle(haggling -> {
                  // The checker knows where TLS_REQD may be said.
                  var _ = haggling.agree(Mode.STRUCTURED);
                  var _ = haggling.listContexts("locked");
                  var _ = haggling.setContexts("locked", Nbd.ALLOCATION);
                  var _ = haggling.ask(12).mustEndWith(Nbd.ERR_UNSUP);
                }));
  }

  private static void locked(CaseList list) {
    for (int option : new int[] {Nbd.OPT_INFO, Nbd.OPT_GO}) {
      list.add(
          ROW,
          "optional: %s of the locked export in clear is TLS_REQD".formatted(Nbd.option(option)),
          bench ->
              bench
                  .tlsOptional()
                  .haggle(haggling -> {
                    byte[] data = Haggling.details("locked", 0, 1, 2, 3);
                    Answer answer = haggling.ask(option, data);
                    var _ = answer.mustEndWith(Nbd.ERR_TLS_REQD);
                    Check.that(answer.infos().isEmpty(), "it tells what TLS protects");
                  }));
    }
    list.add(
        ROW,
        "optional: EXPORT_NAME of the locked export in clear is closed",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
            byte[] name = new Bytes().text("locked").array();
            haggling.peer().send(Haggling.option(Nbd.OPT_EXPORT_NAME, name));
            haggling.peer().mustEnd();
          }
        });
  }

  private static void described(Bench bench) throws IOException {
    bench
        .tlsOptional()
        .haggle(haggling -> {
          Answer listed = haggling.ask(Nbd.OPT_LIST).mustAcknowledge();
          Entry expected = new Entry("disk", Bench.DESCRIPTION);
          Check.that(listed.exports().contains(expected), "%s", listed.exports());
          Answer told = haggling.info("disk", Nbd.INFO_DESCRIPTION).mustAcknowledge();
          ByteBuffer text = told.infos().get(Nbd.INFO_DESCRIPTION);
          Check.that(
              text != null && Bytes.checkedText(text, "the description").equals(Bench.DESCRIPTION),
              "INFO has another description");
        });
  }

  private static void unlocked(Bench bench, Mode mode) throws IOException {
    try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
      Session session = haggling.startTls(bench.tls()).agree(mode).go("locked");
      byte[] data = Bench.noise(100_000, mode.toString().hashCode());
      session.write(777, data);
      session.mustHold(777, data);
      session.mustBeInStep();
      session.leave();
    }
  }
}
