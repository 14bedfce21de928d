package io.qnbd.it.conformance;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Many requests on their way, and every way for a connection to end among them. */
final class PipelineCases {
  private PipelineCases() {}

  static void addTo(CaseList list) {
    list.each("6.1", "8 writes and DISC in one segment: 8 replies, closed", PipelineCases::disc);
    list.each(
        "6.1",
        "16 reads and DISC, nothing read before: 16 replies, closed",
        (bench, mode) -> ending(bench, mode, true));
    list.each(
        "6.1",
        "half-close behind 16 reads: 16 replies, closed",
        (bench, mode) -> ending(bench, mode, false));
    list.each("6.1", "writes in front of DISC are in the export", PipelineCases::discKeeps);
    list.each("6.1", "half-close within a write: the write does not happen", PipelineCases::cut);
    list.each("6.2", "reset with 32 MiB of replies waiting: no harm", PipelineCases::reset);
    list.each("6.2", "reset within a write: no harm", PipelineCases::resetWithin);
    list.add("6.2", "reset in the handshake: no harm", PipelineCases::resetEarly);
    list.each("6.18", "64 requests of every kind in one segment: 64 replies", PipelineCases::mixed);
    list.each(
        "6.18", "2000 reads before the first reply is read: 2000 replies", PipelineCases::many);
    list.each("6.18", "equal cookies in flight: a reply for each", PipelineCases::equalCookies);
    list.each(
        "6.18", "a request in two segments, cut anywhere: answered", PipelineCases::cutAnywhere);
    for (int magic : new int[] {0x12560953, 0x96744668, 0x25609514, 0, -1}) {
      list.each(
          "6.20",
          "request magic 0x%08x: closed".formatted(magic),
          (bench, mode) -> badMagic(bench, mode, magic));
    }
    list.each("6.20", "noise for requests: closed", PipelineCases::noise);
    list.add("6.11", "200 options, each behind the reply to the last", PipelineCases::roundTrips);
  }

  private static void disc(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(8 << 20);
    try (Session session = bench.plain().open(mode, "rw")) {
      Ask[] asks = new Ask[9];
      for (int index = 0; index < 8; index++) {
        asks[index] = Ask.write(place + index * 65_536L, Bench.noise(65_536, index));
      }
      asks[8] = Ask.of(Nbd.DISC, 0, 0);
      session.send(asks);
      mustAllSucceed(session, 8);
      session.peer().mustEnd();
    }
  }

  private static void mustAllSucceed(Session session, int count) throws IOException {
    List<Reply> replies = session.awaitAll();
    Check.that(replies.size() == count, "%d replies", replies.size());
    for (Reply reply : replies) {
      reply.mustSucceed();
    }
  }

  private static void ending(Bench bench, Mode mode, boolean disc) throws IOException {
    try (Session session = bench.plain().open(mode, "pattern")) {
      Ask[] asks = new Ask[16];
      Arrays.setAll(asks, index -> Ask.read(index, 1 << 20));
      session.send(asks);
      if (disc) {
        session.send(Ask.of(Nbd.DISC, 0, 0));
      } else {
        session.peer().halfClose();
      }
      mustAllSucceed(session, 16);
      session.peer().mustEnd();
    }
  }

  private static void discKeeps(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    byte[] data = Bench.noise(1 << 20, place);
    try (Session session = bench.plain().open(mode, "rw")) {
      session.send(Ask.write(place, data), Ask.of(Nbd.DISC, 0, 0));
      mustAllSucceed(session, 1);
      session.peer().mustEnd();
    }
    bench.plain().serve(mode, "rw", session -> session.mustHold(place, data));
  }

  private static void cut(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(1 << 20);
    try (Session session = bench.plain().open(mode, "rw")) {
      byte[] write = Ask.write(place, Bench.noise(65_536, 1)).cookie(9).encode(mode);
      session.peer().send(Arrays.copyOf(write, write.length - 1));
      session.peer().halfClose();
      session.peer().mustEnd();
    }
    bench.plain().serve(mode, "rw", session -> session.mustHold(place, new byte[65_536]));
  }

  private static void reset(Bench bench, Mode mode) throws IOException {
    try (Session session = bench.plain().open(mode, "pattern")) {
      Ask[] asks = new Ask[32];
      Arrays.setAll(asks, index -> Ask.read(index, 1 << 20));
      session.send(asks);
      var _ = session.peer().read(1000); // replies are on their way
      session.peer().reset();
    }
    bench.plain().serve(mode, "pattern", session -> session.mustHold(0, bench.pattern()));
  }

  private static void resetWithin(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(2 << 20);
    try (Session session = bench.plain().open(mode, "rw")) {
      byte[] write = Ask.write(place, Bench.noise(1 << 20, 1)).cookie(9).encode(mode);
      session.peer().send(Arrays.copyOf(write, 600_000));
      session.peer().reset();
    }
    bench.plain().serve(mode, "rw", session -> session.mustHold(place, new byte[1 << 20]));
  }

  private static void resetEarly(Bench bench) throws IOException {
    for (int length : new int[] {0, 3, 4, 10, 20, 21}) {
      try (Peer peer = Peer.connect(bench.plain().port())) {
        byte[] list = Haggling.option(Nbd.OPT_GO, Haggling.details("rw"));
        peer.send(Arrays.copyOf(new Bytes().u32(3).raw(list).array(), length));
        peer.reset();
      }
    }
    bench.plain().haggle(haggling -> haggling.info("rw").mustAcknowledge());
  }

  private static void mixed(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(8 << 20);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              Ask[] asks = new Ask[64];
              Arrays.setAll(
                  asks,
                  index -> {
                    long at = place + index * 65_536L;
                    return switch (index % 6) {
                      case 0 -> Ask.read(at, 4096);
                      case 1 -> Ask.write(at, Bench.noise(512, index));
                      case 2 -> Ask.of(Nbd.TRIM, at, 65_536);
                      case 3 -> Ask.zeroes(at, 4096);
                      case 4 -> Ask.of(Nbd.CACHE, at, 4096);
                      default -> Ask.flush();
                    };
                  });
              session.send(asks);
              mustAllSucceed(session, 64);
              for (int index = 1; index < 64; index += 6) {
                session.mustHold(place + index * 65_536L, Bench.noise(512, index));
              }
            });
  }

  private static void many(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              Ask[] asks = new Ask[2000];
              Arrays.setAll(asks, index -> Ask.read(index * 512L, 512));
              session.send(asks);
              List<Reply> replies = session.awaitAll();
              Check.that(replies.size() == 2000, "%d replies", replies.size());
              for (Reply reply : replies) {
                int at = (int) reply.ask.offset();
                Bench.mustEqual(bench.pattern(at, 512), reply.data());
              }
            });
  }

  private static void equalCookies(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "pattern",
            session -> {
              for (Ask ask : List.of(Ask.flush(), Ask.read(7, 1), Ask.of(Nbd.CACHE, 0, 512))) {
                Ask[] equal = new Ask[20];
                Arrays.fill(equal, ask.cookie(0x5a5a));
                session.send(equal);
                mustAllSucceed(session, 20);
              }
            });
  }

  private static void cutAnywhere(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              long place = bench.fresh(1 << 20);
              int length = Ask.write(place, new byte[8]).encode(mode).length;
              for (int at = 1; at < length; at++) {
                byte[] data = Bench.noise(8, at);
                Ask ask = session.numbered(Ask.write(place + 8L * at, data));
                byte[] whole = ask.encode(mode);
                session.peer().send(Arrays.copyOf(whole, at));
                session.peer().send(Arrays.copyOfRange(whole, at, length));
                session.await(ask).mustSucceed();
                session.mustHold(place + 8L * at, data);
              }
            });
  }

  private static void badMagic(Bench bench, Mode mode, int magic) throws IOException {
    try (Session session = bench.plain().open(mode, "pattern")) {
      byte[] request = Ask.read(0, 512).cookie(1).encode(mode);
      System.arraycopy(new Bytes().u32(magic).array(), 0, request, 0, 4);
      session.peer().sendToWhomMayBeGone(request);
      session.peer().sendToWhomMayBeGone(Ask.flush().cookie(2).encode(mode));
      // A last reply to what cannot be read is no answer to the request behind it.
      int said = session.peer().countToEnd();
      Check.that(said < 2 * (mode == Mode.EXTENDED ? 32 : 16), "%d bytes of replies", said);
    }
    bench.plain().serve(mode, "pattern", Session::mustBeInStep);
  }

  private static void noise(Bench bench, Mode mode) throws IOException {
    try (Session session = bench.plain().open(mode, "pattern")) {
      session.peer().sendToWhomMayBeGone(Bench.noise(1 << 20, 11));
      session.peer().mustEnd();
    }
    bench.plain().serve(mode, "pattern", Session::mustBeInStep);
  }

  /** Nobody can promise how fast a machine is; the time is told, what comes is checked. */
  private static void roundTrips(Bench bench) throws IOException {
    bench
        .plain()
        .haggle(haggling -> {
          List<Long> nanos = new ArrayList<>();
          for (int count = 0; count < 200; count++) {
            long start = System.nanoTime();
            var _ = haggling.info("pattern", Nbd.INFO_BLOCK_SIZE).mustAcknowledge();
            nanos.add(System.nanoTime() - start);
          }
          nanos.sort(null);
          bench.report("option round trip, median", nanos.get(100) / 1000 + " us");
        });
  }
}
