package io.qnbd.it.conformance;

import java.io.IOException;
import java.util.Arrays;

/** What each command does and which flags it takes ("Request types", "Command flags"). */
final class CommandCases {
  private static final String ROW = "1.4";

  /** Every command with a reply, and the flags that it takes besides FUA. */
  private static final int[][] COMMANDS = {
    {Nbd.READ, Nbd.DF},
    {Nbd.WRITE, 0},
    {Nbd.FLUSH, 0},
    {Nbd.TRIM, 0},
    {Nbd.CACHE, 0},
    {Nbd.WRITE_ZEROES, Nbd.NO_HOLE | Nbd.FAST_ZERO},
    {Nbd.BLOCK_STATUS, Nbd.REQ_ONE},
  };

  private CommandCases() {}

  static void addTo(CaseList list) {
    effects(list);
    hints(list);
    zeroes(list);
    for (int[] command : COMMANDS) {
      flags(list, command[0], command[1]);
    }
    unknown(list);
    readOnly(list);
    list.each(
        ROW, "DISC: no reply, closed", (bench, mode) -> bench.plain().serve(mode, "rw", _ -> {}));
    list.each(ROW, "cookies come back as they are", CommandCases::cookies);
    list.each(
        ROW,
        "BLOCK_STATUS without contexts: EINVAL",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "pattern",
                    session -> session.ask(Ask.status(0, 65536)).mustFail(Nbd.EINVAL)));
    for (int[] odd : new int[][] {{0, 512}, {512, 0}, {512, 512}}) {
      list.each(
          "6.17",
          "FLUSH with offset %d and length %d: success or EINVAL".formatted(odd[0], odd[1]),
          (bench, mode) ->
              bench
                  .plain()
                  .serve(
                      mode,
                      "rw",
                      session ->
                          session
                              .ask(Ask.of(Nbd.FLUSH, odd[0], odd[1]))
                              .mustAnswer(0, Nbd.EINVAL)));
    }
  }

  private static void effects(CaseList list) {
    list.each(
        ROW,
        "READ: what the image holds",
        (bench, mode) ->
            bench.plain().serve(mode, "pattern", session -> session.mustHold(0, bench.pattern())));
    list.each(ROW, "READ at odd places: what the image holds", CommandCases::oddReads);
    list.each(
        ROW,
        "WRITE, then READ: the same bytes",
        (bench, mode) -> {
          long place = bench.fresh(2 << 20);
          byte[] data = Bench.noise(1_000_003, place);
          bench
              .plain()
              .serve(
                  mode,
                  "rw",
                  session -> {
                    session.write(place + 777, data);
                    session.mustHold(place + 777, data);
                    session.mustHold(place, new byte[777]);
                  });
        });
    list.each(
        "6.16",
        "a byte written and read, whatever the blocks are",
        (bench, mode) -> {
          long place = bench.fresh(1 << 20);
          bench
              .plain()
              .serve(
                  mode,
                  "rw",
                  session -> {
                    session.write(place + 65_535, (byte) 1);
                    session.write(place + 65_536, (byte) 2);
                    session.mustHold(place + 65_534, (byte) 0, (byte) 1, (byte) 2, (byte) 0);
                  });
        });
  }

  private static void hints(CaseList list) {
    list.each(ROW, "TRIM: success, neighbours untouched", CommandCases::trim);
    list.each(
        ROW,
        "CACHE: success, data as before",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "pattern",
                    session -> {
                      session.ask(Ask.of(Nbd.CACHE, 0, session.bytes())).mustSucceed();
                      session.ask(Ask.of(Nbd.CACHE, 12_345, 54_321)).mustSucceed();
                      session.mustHold(0, bench.pattern());
                    }));
    list.each(
        ROW,
        "FLUSH behind writes: success",
        (bench, mode) -> {
          long place = bench.fresh(1 << 20);
          bench
              .plain()
              .serve(
                  mode,
                  "rw",
                  session -> {
                    session.write(place, Bench.noise(4096, 1));
                    session.ask(Ask.flush()).mustSucceed();
                    session.ask(Ask.flush()).mustSucceed();
                  });
        });
  }

  private static void oddReads(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              int end = bench.pattern().length;
              for (int at : new int[] {0, 1, 511, 65_535, 65_537, 1_000_001, end - 4097}) {
                for (int length : new int[] {1, 2, 513, 4097}) {
                  session.mustHold(at, bench.pattern(at, length));
                }
              }
              session.mustHold(end - 1, bench.pattern(end - 1, 1));
            });
  }

  private static void trim(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(1 << 20);
    byte[] data = Bench.noise(1 << 20, place);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              session.write(place, data);
              session.ask(Ask.of(Nbd.TRIM, place + 1000, 700_000)).mustSucceed();
              session.mustHold(place, Arrays.copyOf(data, 1000));
              session.mustHold(place + 701_000, Arrays.copyOfRange(data, 701_000, 1 << 20));
              session.ask(Ask.of(Nbd.TRIM, place, 1 << 20).with(Nbd.FUA)).mustSucceed();
              session.write(place, data);
              session.mustHold(place, data);
            });
  }

  private static void zeroes(CaseList list) {
    for (int flags : new int[] {0, Nbd.FUA, Nbd.NO_HOLE, Nbd.NO_HOLE | Nbd.FUA}) {
      list.each(
          ROW,
          "WRITE_ZEROES with flags %d: zeroes and nothing else".formatted(flags),
          (bench, mode) -> zeroed(bench, mode, flags));
    }
    for (int flags : new int[] {Nbd.FAST_ZERO, Nbd.FAST_ZERO | Nbd.NO_HOLE | Nbd.FUA}) {
      list.each(
          ROW,
          "WRITE_ZEROES with flags %d: zeroes, or ENOTSUP and no change".formatted(flags),
          (bench, mode) -> zeroed(bench, mode, flags));
    }
    list.each(
        ROW,
        "WRITE_ZEROES with FAST_ZERO over a hole, a cluster and a part: all or nothing",
        CommandCases::fastOverAll);
  }

  private static void zeroed(Bench bench, Mode mode, int flags) throws IOException {
    long place = bench.fresh(1 << 20);
    byte[] data = Bench.noise(1 << 20, place);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              session.write(place, data);
              Reply reply = session.ask(Ask.zeroes(place + 100, 800_000).with(flags));
              boolean fast = (flags & Nbd.FAST_ZERO) != 0;
              reply.mustAnswer(0, fast ? Nbd.ENOTSUP : 0);
              if (reply.error == 0) {
                Arrays.fill(data, 100, 800_100, (byte) 0);
              }
              session.mustHold(place, data);
            });
  }

  private static void fastOverAll(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(1 << 20);
    byte[] data = Arrays.copyOf(Bench.noise(200_000, place), 1 << 20);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              session.write(place, Arrays.copyOf(data, 200_000));
              for (int[] range : new int[][] {{65_536, 900_000}, {10, 500}, {600_000, 65_537}}) {
                Ask ask = Ask.zeroes(place + range[0], range[1]).with(Nbd.FAST_ZERO);
                Reply reply = session.ask(ask).mustAnswer(0, Nbd.ENOTSUP);
                if (reply.error == 0) {
                  Arrays.fill(data, range[0], range[0] + range[1], (byte) 0);
                }
                session.mustHold(place, data);
              }
            });
  }

  private static void flags(CaseList list, int type, int taken) {
    String name = Nbd.command(type);
    list.each(
        "6.17",
        name + " with FUA: success",
        (bench, mode) -> {
          Endpoint.Work work =
              session -> session.ask(anywhere(bench, type).with(Nbd.FUA)).mustSucceed();
          if (type == Nbd.BLOCK_STATUS && mode.chunked()) {
            bench.plain().serveWith(mode, "rw", work, Nbd.ALLOCATION);
          } else if (type != Nbd.BLOCK_STATUS) {
            bench.plain().serve(mode, "rw", work);
          } else {
            bench.plain().serve(mode, "rw", session -> refusedStatus(session));
          }
        });
    list.each(
        "6.17",
        name + " with flags that it does not take: EINVAL",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "rw",
                    session -> {
                      for (int bit = 1; bit < 16; bit++) {
                        int flag = 1 << bit;
                        // Under extended headers the payload flag is a matter of its own.
                        boolean other = mode == Mode.EXTENDED && flag == Nbd.PAYLOAD_LEN;
                        boolean known = (taken & flag) != 0 && (flag != Nbd.DF || mode.chunked());
                        if (!known && !other) {
                          session.ask(anywhere(bench, type).with(flag)).mustFail(Nbd.EINVAL);
                        }
                      }
                    }));
  }

  /** Without chunks there are no contexts, so that FUA has nothing to be accepted on. */
  private static void refusedStatus(Session session) throws IOException {
    session.ask(Ask.status(0, 512).with(Nbd.FUA)).mustFail(Nbd.EINVAL);
  }

  private static Ask anywhere(Bench bench, int type) {
    return type == Nbd.FLUSH ? Ask.flush() : Ask.any(type, bench.fresh(1 << 20), 4096);
  }

  private static void unknown(CaseList list) {
    for (int type : new int[] {Nbd.RESIZE, 9, 100, 0x100, 0xffff}) {
      list.each(
          ROW,
          Nbd.command(type) + ": EINVAL",
          (bench, mode) ->
              bench
                  .plain()
                  .serve(
                      mode,
                      "rw",
                      session -> session.ask(Ask.of(type, 0, 512)).mustFail(Nbd.EINVAL)));
    }
  }

  private static void readOnly(CaseList list) {
    for (int type : new int[] {Nbd.WRITE, Nbd.TRIM, Nbd.WRITE_ZEROES}) {
      list.each(
          type == Nbd.WRITE ? "6.6" : ROW,
          Nbd.command(type) + " on a read-only export: EPERM",
          (bench, mode) ->
              bench
                  .readOnly()
                  .serve(
                      mode,
                      "bitmaps",
                      session -> {
                        session.ask(Ask.any(type, 0, 65_536)).mustFail(Nbd.EPERM);
                        session.ask(Ask.any(type, 1, 511).with(Nbd.FUA)).mustFail(Nbd.EPERM);
                        session.mustHold(0, bench.bitmapsHead());
                      }));
    }
    list.each(
        ROW,
        "READ, FLUSH and CACHE on a read-only export: success",
        (bench, mode) ->
            bench
                .readOnly()
                .serve(
                    mode,
                    "bitmaps",
                    session -> {
                      session.mustHold(0, bench.bitmapsHead());
                      session.ask(Ask.flush()).mustSucceed();
                      session.ask(Ask.of(Nbd.CACHE, 0, 65_536)).mustSucceed();
                    }));
  }

  private static void cookies(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              for (long cookie : new long[] {0, 1, -1, Long.MIN_VALUE, 0x67446698668e33efL}) {
                session.ask(Ask.read(5, 7).cookie(cookie)).mustSucceed();
                session.ask(Ask.flush().cookie(cookie)).mustSucceed();
                session.ask(Ask.read(0, 0xffff_ffffL).cookie(cookie)).mustFail(Nbd.EINVAL);
              }
            });
  }
}
