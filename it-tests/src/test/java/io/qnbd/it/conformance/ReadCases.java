package io.qnbd.it.conformance;

import io.qnbd.it.conformance.Reply.Content;
import java.io.IOException;

/** How the data of reads travels ("Structured reply types", "Request types", NBD_CMD_READ). */
final class ReadCases {
  private static final String ROW = "1.5";

  private ReadCases() {}

  static void addTo(CaseList list) {
    list.each(
        ROW,
        "READ of a hole: zeroes",
        (bench, mode) -> {
          long place = bench.fresh(4 << 20);
          bench.plain().serve(mode, "rw", session -> session.mustHold(place, new byte[4 << 20]));
        });
    list.chunked(
        ROW,
        "READ of a hole: no data travels",
        (bench, mode) -> {
          long place = bench.fresh(4 << 20);
          bench
              .plain()
              .serve(
                  mode,
                  "rw",
                  session -> {
                    Reply reply = session.ask(Ask.read(place, 4 << 20)).mustSucceed();
                    Check.that(reply.dataBytes() == 0, "%d bytes", reply.dataBytes());
                  });
        });
    list.chunked(ROW, "READ of data and holes: data where there is some", ReadCases::sparse);
    list.chunked(ROW, "READ of zeroes written: no data travels", ReadCases::writtenZeroes);
    list.chunked(ROW, "READ with DF over data and holes: one chunk", ReadCases::unfragmented);
    list.chunked(
        ROW,
        "READ with DF of 65536 bytes: must work",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "pattern",
                    session -> {
                      for (int at : new int[] {0, 1, 1_048_000, 1_310_000, 2_097_100}) {
                        byte[] data = session.ask(Ask.read(at, 65_536).with(Nbd.DF)).data();
                        Bench.mustEqual(bench.pattern(at, 65_536), data);
                      }
                    }));
    list.chunked(
        ROW,
        "READ with DF of the whole payload: one chunk or EOVERFLOW",
        (bench, mode) -> {
          long place = bench.fresh(128 << 20);
          bench
              .plain()
              .serve(
                  mode,
                  "rw",
                  session -> {
                    session.write(place + 5_000_000, Bench.noise(1 << 20, 1));
                    long most = session.payloadMax();
                    Ask ask = Ask.read(place, most).with(Nbd.DF);
                    session.ask(ask).mustAnswer(0, Nbd.EOVERFLOW);
                  });
        });
    list.chunked("6.10", "READ errors come in chunks", ReadCases::errors);
    list.add(
        ROW,
        "READ with DF without chunks: EINVAL",
        bench ->
            bench
                .plain()
                .serve(
                    Mode.SIMPLE,
                    "pattern",
                    session -> session.ask(Ask.read(0, 512).with(Nbd.DF)).mustFail(Nbd.EINVAL)));
  }

  private static void sparse(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              Reply reply = session.ask(Ask.read(0, session.bytes()));
              Bench.mustEqual(bench.pattern(), reply.data());
              long most = Bench.PATTERN_DATA_BYTES;
              long sent = reply.dataBytes();
              Check.that(sent <= most, "%d bytes of data, %d are in the image", sent, most);
            });
  }

  private static void writtenZeroes(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              session.write(place, Bench.noise(1 << 20, place));
              session.ask(Ask.zeroes(place, 1 << 20)).mustSucceed();
              Reply reply = session.ask(Ask.read(place, 1 << 20)).mustSucceed();
              Bench.mustEqual(new byte[1 << 20], reply.data());
              Check.that(reply.dataBytes() == 0, "%d bytes of data", reply.dataBytes());
            });
  }

  private static void unfragmented(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              // Data, a hole behind it, and data again; the checker counts the chunks.
              Reply mixed = session.ask(Ask.read(15 << 16, 7 << 16).with(Nbd.DF));
              mixed.mustAnswer(0, Nbd.EOVERFLOW);
              if (mixed.error == 0) {
                Bench.mustEqual(bench.pattern(15 << 16, 7 << 16), mixed.data());
                Check.that(mixed.content.stream().noneMatch(Content::hole), "a hole for data");
              }
              Reply hole = session.ask(Ask.read(50 << 16, 1 << 16).with(Nbd.DF));
              Bench.mustEqual(new byte[1 << 16], hole.data());
            });
  }

  private static void errors(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              // A simple reply to any of these fails in the checker.
              session.ask(Ask.read(session.bytes(), 1)).mustFail(Nbd.EINVAL);
              session.ask(Ask.read(0, session.bytes() + 1)).mustFail(Nbd.EINVAL);
              session.ask(Ask.read(0, 512).with(0x8000)).mustFail(Nbd.EINVAL);
              session.ask(Ask.read(0, 512).with(Nbd.NO_HOLE)).mustFail(Nbd.EINVAL);
              session.ask(Ask.read(-1, 1).with(Nbd.DF)).mustFail(Nbd.EINVAL);
              session.ask(Ask.read(-1, 2).with(Nbd.DF)).mustFail(Nbd.EINVAL);
            });
  }
}
