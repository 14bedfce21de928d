package io.qnbd.it.conformance;

import java.io.IOException;
import java.util.Map;
import java.util.TreeMap;

/** Where requests lie: past the end, beyond any end, nowhere ("Error values"). */
final class RangeCases {
  /** Every command over a range and the error for a range that is not in the export. */
  private static final Map<Integer, Integer> OUTSIDE =
      new TreeMap<>(
          Map.of(
              Nbd.READ, Nbd.EINVAL,
              Nbd.WRITE, Nbd.ENOSPC,
              Nbd.TRIM, Nbd.EINVAL,
              Nbd.CACHE, Nbd.EINVAL,
              Nbd.WRITE_ZEROES, Nbd.ENOSPC,
              Nbd.BLOCK_STATUS, Nbd.EINVAL));

  private RangeCases() {}

  static void addTo(CaseList list) {
    OUTSIDE.forEach((type, error) -> {
      String name = Nbd.command(type);
      String right = error == Nbd.ENOSPC ? "ENOSPC" : "EINVAL";
      list.each(
          type == Nbd.WRITE ? "6.6" : "1.4",
          name + " past the end: " + right,
          (bench, mode) -> on(bench, mode, type, session -> past(session, type, error)));
      list.each(
          "6.8",
          "%s at 2^63, or around 2^64: %s".formatted(name, right),
          (bench, mode) -> on(bench, mode, type, session -> beyond(session, type, error)));
      list.each(
          type == Nbd.CACHE ? "8" : "6.9",
          name + " of length 0: answered",
          (bench, mode) -> on(bench, mode, type, session -> nothing(session, type)));
    });
    list.each(
        "6.6",
        "WRITE with an unknown flag: payload consumed, EINVAL",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "rw",
                    session -> {
                      Ask odd = Ask.write(0, new byte[100_000]).with(0x4000);
                      session.ask(odd).mustFail(Nbd.EINVAL);
                    }));
    list.each(
        "6.6",
        "WRITE past the end with 1 MiB: payload consumed, ENOSPC",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "pattern",
                    session -> {
                      Ask far = Ask.write(session.bytes() - 512, new byte[1 << 20]);
                      session.ask(far).mustFail(Nbd.ENOSPC);
                      session.mustHold(0, bench.pattern());
                    }));
  }

  /** The pattern, which nothing here changes; with a context where a status needs one. */
  private static void on(Bench bench, Mode mode, int type, Endpoint.Work work) throws IOException {
    if (type == Nbd.BLOCK_STATUS && mode.chunked()) {
      bench.plain().serveWith(mode, "pattern", work, Nbd.ALLOCATION);
    } else {
      bench.plain().serve(mode, "pattern", work);
    }
  }

  private static void past(Session session, int type, int error) throws IOException {
    long end = session.bytes();
    session.ask(Ask.any(type, end - 1, 2)).mustFail(error);
    session.ask(Ask.any(type, end, 1)).mustFail(error);
    session.ask(Ask.any(type, end - 512, 513)).mustFail(error);
    session.ask(Ask.any(type, end + (1L << 32), 512)).mustFail(error);
    if (type != Nbd.WRITE) {
      session.ask(Ask.of(type, 512, 0xffff_fe00L)).mustFail(error);
    }
  }

  private static void beyond(Session session, int type, int error) throws IOException {
    session.ask(Ask.any(type, Long.MIN_VALUE, 512)).mustFail(error);
    session.ask(Ask.any(type, Long.MAX_VALUE, 1)).mustFail(error);
    session.ask(Ask.any(type, Long.MAX_VALUE - 511, 1024)).mustFail(error);
    session.ask(Ask.any(type, -512, 1024)).mustFail(error);
    session.ask(Ask.any(type, -1, 1)).mustFail(error);
    session.ask(Ask.any(type, -1, 2)).mustFail(error);
  }

  /** The protocol leaves open what such a request does; it must not end the connection. */
  private static void nothing(Session session, int type) throws IOException {
    for (long offset : new long[] {0, 1, session.bytes(), session.bytes() + 1, -1}) {
      Reply reply = session.ask(Ask.any(type, offset, 0));
      reply.mustAnswer(0, Nbd.EINVAL, Nbd.ENOSPC);
    }
  }
}
