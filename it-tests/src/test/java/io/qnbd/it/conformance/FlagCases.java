package io.qnbd.it.conformance;

import java.io.IOException;

/** What the transmission flags promise ("Transmission flags"). */
final class FlagCases {
  private static final String ROW = "1.3";

  private FlagCases() {}

  static void addTo(CaseList list) {
    promises(list, "HAS_FLAGS is set", Nbd.HAS_FLAGS);
    promises(list, "FLUSH and FUA are offered", Nbd.SEND_FLUSH | Nbd.SEND_FUA);
    promises(list, "TRIM and WRITE_ZEROES are offered", Nbd.SEND_TRIM | Nbd.SEND_WRITE_ZEROES);
    promises(list, "CACHE is offered", Nbd.SEND_CACHE);
    promises(list, "FAST_ZERO is offered", Nbd.SEND_FAST_ZERO);
    promises(list, "MULTI_CONN is offered", Nbd.CAN_MULTI_CONN);
    list.each(
        ROW,
        "DF is offered with chunks only",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "rw",
                    session ->
                        Check.that(session.has(Nbd.SEND_DF) == mode.chunked(), "DF is wrong")));
    list.each(
        ROW,
        "READ_ONLY is told where it is so only",
        (bench, mode) -> {
          bench
              .plain()
              .serve(mode, "rw", session -> Check.that(!session.has(Nbd.READ_ONLY), "read-only"));
          bench
              .readOnly()
              .serve(
                  mode,
                  "bitmaps",
                  session -> Check.that(session.has(Nbd.READ_ONLY), "not read-only"));
        });
    list.each(
        ROW,
        "no flag without meaning, no RESIZE unasked",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "rw",
                    session ->
                        Check.that(
                            !session.has(Nbd.UNDEFINED_FLAGS | Nbd.SEND_RESIZE),
                            "a flag that nobody asked for")));
    list.each(
        ROW,
        "FAST_ZERO implies WRITE_ZEROES, also where it is read-only",
        (bench, mode) ->
            bench
                .readOnly()
                .serve(
                    mode,
                    "bitmaps",
                    session ->
                        Check.that(
                            !session.has(Nbd.SEND_FAST_ZERO) || session.has(Nbd.SEND_WRITE_ZEROES),
                            "FAST_ZERO alone")));
    list.each(ROW, "BLOCK_STATUS_PAYLOAD without contexts: not set", FlagCases::payloadUnasked);
    list.chunked(
        ROW, "BLOCK_STATUS_PAYLOAD with contexts: under extended headers", FlagCases::payload);
    list.add(ROW, "EXPORT_NAME tells the same flags as GO", FlagCases::sameFlags);
    list.each(ROW, "MULTI_CONN: a flushed write shows on another connection", FlagCases::shared);
    list.each(ROW, "FUA: a write that is acknowledged shows elsewhere", FlagCases::sharedFua);
  }

  private static void promises(CaseList list, String title, int flags) {
    list.each(
        ROW,
        title,
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "rw",
                    session -> {
                      for (int bit = flags; bit != 0; bit &= bit - 1) {
                        int flag = Integer.lowestOneBit(bit);
                        Check.that(session.has(flag), "flag 0x%x is clear", flag);
                      }
                    }));
  }

  private static void payloadUnasked(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> Check.that(!session.has(Nbd.BLOCK_STATUS_PAYLOAD), "set without contexts"));
  }

  private static void payload(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serveWith(
            mode,
            "pattern",
            session ->
                Check.that(
                    session.has(Nbd.BLOCK_STATUS_PAYLOAD) == (mode == Mode.EXTENDED),
                    "the flag is wrong"),
            Nbd.ALLOCATION);
  }

  private static void sameFlags(Bench bench) throws IOException {
    try (Session go = bench.plain().open(Mode.SIMPLE, "rw");
        Haggling haggling = Haggling.open(bench.plain());
        Session named = haggling.exportName("rw")) {
      Check.that(go.bytes() == named.bytes(), "another size");
      for (int bit = 0; bit < 16; bit++) {
        Check.that(go.has(1 << bit) == named.has(1 << bit), "bit %d differs", bit);
      }
    }
  }

  private static void shared(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(1 << 20);
    byte[] data = Bench.noise(70_000, place);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            writer ->
                bench
                    .plain()
                    .serve(
                        mode,
                        "rw",
                        reader -> {
                          writer.write(place + 5, data);
                          writer.ask(Ask.flush()).mustSucceed();
                          reader.mustHold(place + 5, data);
                        }));
  }

  private static void sharedFua(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(1 << 20);
    byte[] data = Bench.noise(4096, place);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            writer ->
                bench
                    .plain()
                    .serve(
                        mode,
                        "rw",
                        reader -> {
                          writer.ask(Ask.write(place, data).with(Nbd.FUA)).mustSucceed();
                          reader.mustHold(place, data);
                          writer.ask(Ask.zeroes(place, 4096).with(Nbd.FUA)).mustSucceed();
                          reader.mustHold(place, new byte[4096]);
                        }));
  }
}
