package io.qnbd.it.conformance;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/** What has ended or swollen servers. After each, this one must serve as before. */
final class SurvivalCases {
  private static final String ROW = "8";

  /** Memory for that nobody reads: far below what was asked for, far above what any limit needs. */
  private static final long GROWTH_BYTES_MAX = 2L << 30;

  private SurvivalCases() {}

  static void addTo(CaseList list) {
    list.each(
        ROW, "CACHE on an overlay over a backing file: success", SurvivalCases::cachesOverlay);
    list.each(ROW, "FAST_ZERO where it was not offered: an error", SurvivalCases::fastUnoffered);
    list.each(ROW, "FAST_ZERO over half a hole: all or nothing", SurvivalCases::fastHalf);
    list.each(ROW, "50 connections reset under load: no harm", SurvivalCases::resets);
    list.add(ROW, "16 GiB asked for and never read: others are served", SurvivalCases::greedy);
    list.add("6.5", "options without end: closed", SurvivalCases::flood);
    list.add("6.5", "options without end, none of their replies read: closed", SurvivalCases::deaf);
    list.add(
        "6.5",
        "100 connections that say nothing: others are served",
        bench -> {
          Peer[] idle = new Peer[100];
          try {
            for (int index = 0; index < idle.length; index++) {
              idle[index] = Peer.connect(bench.plain().port());
            }
            bench.plain().serve(Mode.SIMPLE, "pattern", Session::mustBeInStep);
          } finally {
            for (Peer peer : idle) {
              if (peer != null) {
                peer.close();
              }
            }
          }
        });
  }

  private static void cachesOverlay(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              session.ask(Ask.of(Nbd.CACHE, 0, session.bytes())).mustSucceed();
              for (int at = 0; at < session.bytes() - 3000; at += 30_011) {
                session.ask(Ask.of(Nbd.CACHE, at, 3000)).mustSucceed();
              }
              session.mustHold(0, bench.pattern());
            });
  }

  private static void fastUnoffered(Bench bench, Mode mode) throws IOException {
    bench
        .readOnly()
        .serve(
            mode,
            "bitmaps",
            session -> {
              Ask ask = Ask.zeroes(0, 65_536).with(Nbd.FAST_ZERO);
              session.ask(ask).mustFail(Nbd.EPERM, Nbd.EINVAL);
              session.mustHold(0, bench.bitmapsHead());
            });
  }

  private static void fastHalf(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    byte[] data = Bench.noise(1 << 20, place);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              session.write(place + (1 << 20), data);
              for (int flags : new int[] {Nbd.FAST_ZERO, Nbd.FAST_ZERO | Nbd.NO_HOLE}) {
                Ask ask = Ask.zeroes(place + 100, (2 << 20) - 200).with(flags);
                Reply reply = session.ask(ask).mustAnswer(0, Nbd.ENOTSUP);
                if (reply.error == 0) {
                  Arrays.fill(data, 0, data.length - 100, (byte) 0);
                }
                session.mustHold(place + (1 << 20), data);
              }
            });
  }

  private static void resets(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    for (int count = 0; count < 50; count++) {
      try (Session session = bench.plain().open(mode, "rw")) {
        Ask[] asks = new Ask[40];
        Arrays.setAll(
            asks,
            index ->
                switch (index % 4) {
                  case 0 -> Ask.write(place + index * 4096L, new byte[4096]);
                  case 1 -> Ask.read(place, 65_536);
                  case 2 -> Ask.flush();
                  default -> Ask.zeroes(place + index * 4096L, 4096);
                });
        session.send(asks);
        session.peer().reset();
      }
    }
    bench.plain().serve(mode, "rw", Session::mustBeInStep);
  }

  private static void greedy(Bench bench) throws IOException {
    long before = residentBytes(bench);
    try (Session session = bench.plain().open(Mode.SIMPLE, "rw")) {
      ByteArrayOutputStream asks = new ByteArrayOutputStream();
      for (int index = 0; index < 16_384; index++) {
        asks.writeBytes(Ask.read(index * 4096L, 1 << 20).cookie(index).encode(Mode.SIMPLE));
      }
      // The server stops reading when it has enough, so the rest of this may never leave.
      Thread sender =
          Thread.ofVirtual().start(() -> session.peer().sendToWhomMayBeGone(asks.toByteArray()));
      bench
          .plain()
          .serve(
              Mode.STRUCTURED,
              "pattern",
              other -> {
                for (int count = 0; count < 50; count++) {
                  other.mustHold(0, bench.pattern());
                }
              });
      long grown = residentBytes(bench) - before;
      bench.report("growth for 16 GiB never read", (grown >> 20) + " MiB");
      Check.that(grown < GROWTH_BYTES_MAX, "the server grew by %d bytes", grown);
      session.peer().reset();
      join(sender);
    }
    bench.plain().serve(Mode.SIMPLE, "rw", Session::mustBeInStep);
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", e);
    }
  }

  private static long residentBytes(Bench bench) throws IOException {
    Path status = Path.of("/proc", Long.toString(bench.plainPid()), "status");
    for (String line : Files.readAllLines(status)) {
      if (line.startsWith("VmRSS:")) {
        return Long.parseLong(line.replaceAll("\\D", "")) << 10;
      }
    }
    throw new AssertionError("no VmRSS in " + status);
  }

  /** A server may call a hundred thousand options an attack; this one has a limit. */
  private static void flood(Bench bench) throws IOException {
    bench
        .plain()
        .haggleToTheEnd(haggling -> {
          int answered = 0;
          byte[] some = options(100);
          try {
            for (int round = 0; round < 1000; round++) {
              haggling.peer().send(some);
              for (int count = 0; count < 100; count++) {
                var _ = haggling.answer(Nbd.OPT_NOBODY_KNOWS).mustEndWith(Nbd.ERR_UNSUP);
                answered++;
              }
            }
          } catch (IOException e) {
            Check.that(answered >= 32, "closed behind %d options: %s", answered, e);
            return;
          }
          throw new AssertionError("100000 options were answered");
        });
    bench.plain().haggle(_ -> {});
  }

  private static byte[] options(int count) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    for (int index = 0; index < count; index++) {
      out.writeBytes(Haggling.option(Nbd.OPT_NOBODY_KNOWS));
    }
    return out.toByteArray();
  }

  private static void deaf(Bench bench) throws IOException {
    bench
        .plain()
        .haggleToTheEnd(haggling -> {
          byte[] all = options(100_000);
          Thread sender = Thread.ofVirtual().start(() -> haggling.peer().sendToWhomMayBeGone(all));
          join(sender); // ends when all was taken, or the connection is gone
          var _ = haggling.peer().countToEnd();
        });
    bench.plain().haggle(_ -> {});
  }
}
