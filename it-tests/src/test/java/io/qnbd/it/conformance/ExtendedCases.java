package io.qnbd.it.conformance;

import java.io.EOFException;
import java.io.IOException;

/** The extended headers extension: 64-bit lengths, payloads with any command. */
final class ExtendedCases {
  private static final String ROW = "1.7";
  private static final String EDGE = "6.15";
  private static final Mode MODE = Mode.EXTENDED;

  private ExtendedCases() {}

  static void addTo(CaseList list) {
    agreement(list);
    for (int type :
        new int[] {Nbd.READ, Nbd.FLUSH, Nbd.TRIM, Nbd.CACHE, Nbd.WRITE_ZEROES, Nbd.RESIZE, 77}) {
      list.add(
          EDGE,
          Nbd.command(type) + " with a payload: consumed, EINVAL",
          bench -> unwanted(bench, type));
    }
    list.add(EDGE, "WRITE without its payload flag: EINVAL or closed", ExtendedCases::bareWrite);
    list.add(EDGE, "WRITE with its payload flag and length 0: answered", ExtendedCases::emptyWrite);
    for (int type : new int[] {Nbd.WRITE, Nbd.READ}) {
      for (long length : new long[] {1L << 33, Long.MIN_VALUE, -1}) {
        list.add(
            EDGE,
            "%s with a payload of 0x%x bytes: closed".formatted(Nbd.command(type), length),
            bench -> endless(bench, type, length));
      }
    }
    lengths(list);
    statusPayload(list);
  }

  private static void agreement(CaseList list) {
    list.add(
        ROW,
        "EXTENDED_HEADERS without STRUCTURED_REPLY: in force",
        bench ->
            bench.plain().serve(MODE, "pattern", session -> session.mustHold(0, bench.pattern())));
    list.add(
        ROW,
        "EXTENDED_HEADERS behind STRUCTURED_REPLY: in force",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  var _ = haggling.agree(Mode.STRUCTURED).agree(MODE);
                  Session session = haggling.go("pattern");
                  session.mustHold(0, bench.pattern());
                  session.leave();
                }));
    list.add(
        ROW,
        "STRUCTURED_REPLY behind EXTENDED_HEADERS: EXT_HEADER_REQD, still in force",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  var _ = haggling.agree(MODE);
                  var _ =
                      haggling.ask(Nbd.OPT_STRUCTURED_REPLY).mustEndWith(Nbd.ERR_EXT_HEADER_REQD);
                  Session session = haggling.go("pattern");
                  session.mustHold(0, bench.pattern());
                  session.leave();
                }));
    list.add(
        ROW,
        "EXPORT_NAME behind EXTENDED_HEADERS: closed",
        bench ->
            bench
                .plain()
                .haggleToTheEnd(haggling -> {
                  byte[] name = new Bytes().text("pattern").array();
                  haggling.agree(MODE).peer().send(Haggling.option(1, name));
                  haggling.peer().mustEnd();
                }));
    list.add(
        ROW,
        "a compact request under extended headers: closed",
        bench -> wrongHeader(bench, MODE, Mode.STRUCTURED));
    list.in(
        new Mode[] {Mode.SIMPLE, Mode.STRUCTURED},
        ROW,
        "an extended request under compact headers: closed",
        (bench, mode) -> wrongHeader(bench, mode, MODE));
    list.in(
        new Mode[] {Mode.SIMPLE, Mode.STRUCTURED},
        ROW,
        "the payload flag under compact headers: EINVAL",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "rw",
                    session -> {
                      long place = bench.fresh(1 << 20);
                      Ask write = Ask.write(place, new byte[512]).with(Nbd.PAYLOAD_LEN);
                      session.ask(write).mustFail(Nbd.EINVAL);
                      session.ask(Ask.read(0, 9).with(Nbd.PAYLOAD_LEN)).mustFail(Nbd.EINVAL);
                    }));
  }

  private static void wrongHeader(Bench bench, Mode agreed, Mode used) throws IOException {
    try (Session session = bench.plain().open(agreed, "pattern")) {
      // Behind a whole header of either kind nobody can wait for more.
      byte[] request = Ask.read(0, 512).cookie(1).encode(used);
      session.peer().sendToWhomMayBeGone(new Bytes().raw(request).raw(request).array());
      session.peer().mustEnd();
    }
  }

  private static void unwanted(Bench bench, int type) throws IOException {
    bench
        .plain()
        .serve(
            MODE,
            "rw",
            session -> {
              for (int length : new int[] {1, 4096, 1 << 20}) {
                Ask ask = Ask.of(type, 0, length).withPayload(new byte[length]);
                session.ask(ask).mustFail(Nbd.EINVAL);
                session.mustBeInStep();
              }
            });
  }

  private static void bareWrite(Bench bench) throws IOException {
    long place = bench.fresh(1 << 20);
    try (Session session = bench.plain().open(MODE, "rw")) {
      Ask ask = session.numbered(Ask.of(Nbd.WRITE, place, 512));
      session.peer().send(ask.encodeExtended(0));
      try {
        session.await(ask).mustFail(Nbd.EINVAL);
      } catch (EOFException e) {
        return; // what breaks the rules may be answered with the end
      }
      session.mustHold(place, new byte[512]);
      session.mustBeInStep();
      session.leave();
    }
  }

  private static void emptyWrite(Bench bench) throws IOException {
    bench
        .plain()
        .serve(
            MODE,
            "rw",
            session -> session.ask(Ask.write(0, new byte[0])).mustAnswer(0, Nbd.EINVAL));
  }

  private static void endless(Bench bench, int type, long length) throws IOException {
    try (Session session = bench.plain().open(MODE, "rw")) {
      Ask ask = Ask.of(type, 0, length).cookie(1);
      session.peer().send(ask.encodeExtended(Nbd.PAYLOAD_LEN));
      var _ = session.peer().countToEnd();
    }
    bench.plain().serve(MODE, "rw", Session::mustBeInStep);
  }

  private static void lengths(CaseList list) {
    for (int type : new int[] {Nbd.READ, Nbd.TRIM, Nbd.CACHE, Nbd.WRITE_ZEROES}) {
      int error = type == Nbd.WRITE_ZEROES ? Nbd.ENOSPC : Nbd.EINVAL;
      list.add(
          ROW,
          Nbd.command(type) + " of 2^32 + 1, 2^63 and 2^64 - 1 bytes past the end: an error",
          bench ->
              bench
                  .plain()
                  .serve(
                      MODE,
                      "pattern",
                      session -> {
                        for (long length : new long[] {(1L << 32) + 1, Long.MIN_VALUE, -1}) {
                          session.ask(Ask.of(type, 0, length)).mustFail(error);
                          session.ask(Ask.of(type, 512, length)).mustFail(error);
                        }
                        session.mustHold(0, bench.pattern());
                      }));
    }
    list.add(
        ROW,
        "BLOCK_STATUS of 2^63 and 2^64 - 1 bytes: EINVAL",
        bench ->
            bench
                .plain()
                .serveWith(
                    MODE,
                    "pattern",
                    session -> {
                      session.ask(Ask.status(0, Long.MIN_VALUE)).mustFail(Nbd.EINVAL);
                      session.ask(Ask.status(1, -1)).mustFail(Nbd.EINVAL);
                    },
                    Nbd.ALLOCATION));
    list.add(
        ROW,
        "WRITE_ZEROES with FAST_ZERO of 6 GiB: zeroes or ENOTSUP",
        bench ->
            bench
                .plain()
                .serve(
                    MODE,
                    "rw",
                    session -> {
                      Ask ask = Ask.zeroes(Bench.EMPTY_FROM, 6L << 30).with(Nbd.FAST_ZERO);
                      session.ask(ask).mustAnswer(0, Nbd.ENOTSUP);
                    }));
  }

  private static void withTwo(CaseList list, String title, Endpoint.Work work) {
    list.add(
        ROW,
        "BLOCK_STATUS with a payload, " + title,
        bench -> bench.plain().serveWith(MODE, "pattern", work, Nbd.ALLOCATION, Nbd.DEPTH));
  }

  private static void refusesPayload(CaseList list, String title, PayloadOf payload) {
    withTwo(
        list,
        title + ": consumed, EINVAL",
        session -> {
          byte[] bytes = payload.in(session).array();
          Ask ask = Ask.status(0, 0).withPayload(bytes);
          session.ask(ask).mustFail(Nbd.EINVAL);
        });
  }

  private interface PayloadOf {
    Bytes in(Session session);
  }

  private static void statusPayload(CaseList list) {
    for (String one : new String[] {Nbd.ALLOCATION, Nbd.DEPTH}) {
      withTwo(
          list,
          "only %s: only that".formatted(one),
          session -> {
            int id = session.context(one);
            session.ask(Ask.statusOf(0, 65_536, id)).mustSucceed();
            session.ask(Ask.statusOf(0, session.bytes(), id).with(Nbd.REQ_ONE)).mustSucceed();
          });
    }
    withTwo(
        list,
        "all contexts: all",
        session -> {
          int[] ids = {session.context(Nbd.DEPTH), session.context(Nbd.ALLOCATION)};
          session.ask(Ask.statusOf(0, session.bytes(), ids)).mustSucceed();
        });
    withTwo(
        list,
        "no contexts: nothing or EINVAL",
        session -> session.ask(Ask.statusOf(0, 512)).mustAnswer(0, Nbd.EINVAL));
    withTwo(
        list,
        "past the end: EINVAL",
        session -> {
          int id = session.context(Nbd.DEPTH);
          session.ask(Ask.statusOf(0, session.bytes() + 1, id)).mustFail(Nbd.EINVAL);
          session.ask(Ask.statusOf(0, -1, id)).mustFail(Nbd.EINVAL);
          session.ask(Ask.statusOf(-1, 2, id)).mustFail(Nbd.EINVAL);
        });
    refusesPayload(
        list,
        "one context twice",
        session -> {
          int id = session.context(Nbd.DEPTH);
          return new Bytes().u64(512).u32(id).u32(id);
        });
    refusesPayload(
        list,
        "an unknown context",
        session -> new Bytes().u64(512).u32(session.context(Nbd.DEPTH)).u32(0x12345678));
    refusesPayload(
        list,
        "13 bytes",
        session -> new Bytes().u64(512).u32(session.context(Nbd.DEPTH)).raw((byte) 0));
    refusesPayload(list, "4 bytes", _ -> new Bytes().u32(512));
    refusesPayload(
        list,
        "1 MiB of contexts",
        session -> new Bytes().u64(512).raw(new byte[1 << 20]).u32(session.context(Nbd.DEPTH)));
  }
}
