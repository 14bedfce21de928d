package io.qnbd.it.conformance;

import io.qnbd.it.conformance.Reply.Extent;
import java.io.IOException;
import java.util.List;

/** What BLOCK_STATUS tells ("Metadata querying"). The checker adds up the extents. */
final class StatusCases {
  private static final String ROW = "1.5";
  private static final String EDGE = "6.12";
  private static final int CLUSTER = Bench.CLUSTER;

  private StatusCases() {}

  static void addTo(CaseList list) {
    list.chunked(ROW, "base:allocation of the pattern: true everywhere", StatusCases::allocation);
    list.chunked(ROW, "base:allocation of data just written: data", StatusCases::written);
    list.chunked(ROW, "base:allocation of zeroes just written: zero", StatusCases::zeroed);
    list.chunked(ROW, "base:allocation behind TRIM: true", StatusCases::trimmed);
    list.chunked(ROW, "qemu:allocation-depth of a chain: 0, 1 and 2", StatusCases::depth);
    list.chunked(ROW, "qemu:dirty-bitmap: dirty where written", StatusCases::dirty);
    list.chunked(ROW, "several contexts at once: a chunk for each", StatusCases::several);
    list.chunked(EDGE, "REQ_ONE: one extent, within the request", StatusCases::one);
    list.chunked(EDGE, "unaligned offset and length", StatusCases::unaligned);
    list.chunked(EDGE, "a walk over 1 TiB: legal all the way", StatusCases::walk);
    list.chunked(EDGE, "length 2^32 - 1 in a hole of hundreds of GiB", StatusCases::longest);
    list.chunked(EDGE, "1000 extents: all told, equal neighbours merged", StatusCases::many);
    list.in(
        new Mode[] {Mode.EXTENDED},
        EDGE,
        "an extent of more than 4 GiB",
        (bench, _) -> beyond32Bits(bench));
  }

  /** Asks again behind each reply until all of the range is told, and passes the extents on. */
  private static void walk(Session session, String context, long from, long to, Sink sink)
      throws IOException {
    int id = session.context(context);
    long at = from;
    while (at < to) {
      long most = session.mode() == Mode.EXTENDED ? to - at : Math.min(to - at, 0xffff_fe00L);
      for (Extent extent : session.ask(Ask.status(at, most)).extents(id)) {
        sink.extent(at, extent);
        at += extent.bytes();
      }
    }
  }

  private interface Sink {
    void extent(long at, Extent extent);
  }

  private static void on(
      Bench bench, Mode mode, String export, Endpoint.Work work, String... contexts)
      throws IOException {
    bench.holding(export).serveWith(mode, export, work, contexts);
  }

  private static void allocation(Bench bench, Mode mode) throws IOException {
    on(
        bench,
        mode,
        "pattern",
        session -> {
          byte[] content = bench.pattern();
          walk(
              session,
              Nbd.ALLOCATION,
              0,
              session.bytes(),
              (at, extent) -> {
                long end = Math.min(at + extent.bytes(), content.length);
                boolean zero = (extent.flags() & Nbd.STATE_ZERO) != 0;
                if (zero) {
                  Bench.mustBeZero(content, (int) at, (int) end);
                }
                for (long each = at; each < end; each += CLUSTER) {
                  boolean unused = Bench.PATTERN_DEPTH[(int) (each / CLUSTER)] == 0;
                  Check.that(!unused || zero, "a hole at %d is not called zero", each);
                  Check.that(
                      unused || zero || (extent.flags() & Nbd.STATE_HOLE) == 0,
                      "data at %d is called a hole",
                      each);
                }
              });
        },
        Nbd.ALLOCATION);
  }

  /** After {@code first}, the state of the 4 MiB at {@code place} must be as expected. */
  private static void states(
      Bench bench, Mode mode, long place, Endpoint.Work first, int mask, int expected)
      throws IOException {
    on(
        bench,
        mode,
        "rw",
        session -> {
          first.with(session);
          walk(
              session,
              Nbd.ALLOCATION,
              place,
              place + (4 << 20),
              (at, extent) ->
                  Check.that(
                      (extent.flags() & mask) == expected,
                      "the state at %d is %d",
                      at - place,
                      extent.flags()));
        },
        Nbd.ALLOCATION);
  }

  private static void written(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    byte[] data = Bench.noise(4 << 20, place);
    states(bench, mode, place, session -> session.write(place, data), 3, 0);
  }

  private static void zeroed(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    states(
        bench,
        mode,
        place,
        session -> {
          session.write(place, Bench.noise(4 << 20, place));
          session.ask(Ask.zeroes(place, 4 << 20)).mustSucceed();
        },
        Nbd.STATE_ZERO,
        Nbd.STATE_ZERO);
  }

  private static void trimmed(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(4 << 20);
    on(
        bench,
        mode,
        "rw",
        session -> {
          session.write(place, Bench.noise(4 << 20, place));
          session.ask(Ask.of(Nbd.TRIM, place, 4 << 20)).mustSucceed();
          byte[] now = session.read(place, 4 << 20);
          walk(
              session,
              Nbd.ALLOCATION,
              place,
              place + (4 << 20),
              (at, extent) -> {
                int from = (int) (at - place);
                int to = (int) Math.min(from + extent.bytes(), now.length);
                if ((extent.flags() & Nbd.STATE_ZERO) != 0) {
                  Bench.mustBeZero(now, from, to);
                }
              });
        },
        Nbd.ALLOCATION);
  }

  private static void depth(Bench bench, Mode mode) throws IOException {
    on(
        bench,
        mode,
        "pattern",
        session ->
            walk(
                session,
                Nbd.DEPTH,
                0,
                session.bytes(),
                (at, extent) -> {
                  long end = Math.min(at + extent.bytes(), session.bytes());
                  for (long each = at; each < end; each += CLUSTER) {
                    int expected = Bench.PATTERN_DEPTH[(int) (each / CLUSTER)];
                    Check.that(
                        extent.flags() == expected,
                        "the depth at %d is %d, expected %d",
                        each,
                        extent.flags(),
                        expected);
                  }
                }),
        Nbd.DEPTH);
  }

  private static void dirty(Bench bench, Mode mode) throws IOException {
    String bitmap = Nbd.DIRTY + Bench.BITMAP;
    String empty = Nbd.DIRTY + Bench.EMPTY_BITMAP;
    on(
        bench,
        mode,
        "bitmaps",
        session -> {
          walk(
              session,
              bitmap,
              0,
              session.bytes(),
              (at, extent) -> {
                long end = Math.min(at + extent.bytes(), session.bytes());
                for (long each = at; each < end; each += CLUSTER) {
                  boolean wanted = Bench.DIRTY_CLUSTERS.contains((int) (each / CLUSTER));
                  Check.that((extent.flags() == 1) == wanted, "%d is told to be %s", each, extent);
                }
              });
          walk(
              session,
              empty,
              0,
              session.bytes(),
              (at, extent) -> Check.that(extent.flags() == 0, "%d is dirty", at));
        },
        bitmap,
        empty);
  }

  private static void several(Bench bench, Mode mode) throws IOException {
    String bitmap = Nbd.DIRTY + Bench.BITMAP;
    on(
        bench,
        mode,
        "bitmaps",
        session -> {
          for (int flags : new int[] {0, Nbd.REQ_ONE}) {
            Reply reply = session.ask(Ask.status(0, session.bytes()).with(flags)).mustSucceed();
            Check.that(reply.status.size() == 3, "%d chunks", reply.status.size());
          }
        },
        Nbd.ALLOCATION,
        Nbd.DEPTH,
        bitmap);
  }

  private static void one(Bench bench, Mode mode) throws IOException {
    on(
        bench,
        mode,
        "pattern",
        session -> {
          for (int at : new int[] {0, 1, 65_535, 65_536, 1_048_576, 1_048_577}) {
            for (int length : new int[] {1, 511, 512, 65_536, 2_000_000}) {
              session.ask(Ask.status(at, length).with(Nbd.REQ_ONE)).mustSucceed();
            }
          }
          session.ask(Ask.status(session.bytes() - 1, 1).with(Nbd.REQ_ONE)).mustSucceed();
        },
        Nbd.ALLOCATION,
        Nbd.DEPTH);
  }

  private static void unaligned(Bench bench, Mode mode) throws IOException {
    on(
        bench,
        mode,
        "pattern",
        session -> {
          for (int at : new int[] {1, 511, 65_535, 983_039, 1_048_577, 4_000_001}) {
            for (int length : new int[] {1, 2, 513, 100_001}) {
              session.ask(Ask.status(at, length)).mustSucceed();
            }
          }
        },
        Nbd.ALLOCATION,
        Nbd.DEPTH);
  }

  private static void walk(Bench bench, Mode mode) throws IOException {
    on(
        bench,
        mode,
        "big",
        session -> {
          long[] dataBytes = {0};
          walk(
              session,
              Nbd.ALLOCATION,
              0,
              session.bytes(),
              (_, extent) -> dataBytes[0] += extent.flags() == 0 ? extent.bytes() : 0);
          Check.that(dataBytes[0] == Bench.BIG_DATA_BYTES, "%d bytes of data", dataBytes[0]);
        },
        Nbd.ALLOCATION);
  }

  private static void longest(Bench bench, Mode mode) throws IOException {
    on(
        bench,
        mode,
        "big",
        session -> {
          int id = session.context(Nbd.ALLOCATION);
          for (long at : new long[] {1L << 38, (1L << 38) + 512, (1L << 38) + 1}) {
            for (long length : new long[] {0xffff_ffffL, 0xffff_fe00L, 0x8000_0000L}) {
              Extent first = session.ask(Ask.status(at, length)).extents(id).getFirst();
              Check.that(first.flags() == 3, "the hole is told to be %s", first);
              session.ask(Ask.status(at, length).with(Nbd.REQ_ONE)).mustSucceed();
            }
          }
        },
        Nbd.ALLOCATION);
  }

  private static void many(Bench bench, Mode mode) throws IOException {
    int count = 1000;
    long place = bench.fresh(count * CLUSTER);
    on(
        bench,
        mode,
        "rw",
        session -> {
          for (int index = 0; index < count; index += 2) {
            session.write(place + (long) index * CLUSTER, (byte) 1);
          }
          long[] last = {-1};
          int[] extents = {0};
          walk(
              session,
              Nbd.ALLOCATION,
              place,
              place + (long) count * CLUSTER,
              (at, extent) -> {
                long cluster = (at - place) / CLUSTER;
                boolean data = cluster % 2 == 0 && cluster < count;
                Check.that((extent.flags() == 0) == data, "cluster %d is told %s", cluster, extent);
                Check.that(extent.flags() != last[0], "equal neighbours at cluster %d", cluster);
                last[0] = extent.flags();
                extents[0]++;
              });
          Check.that(extents[0] == count, "%d extents", extents[0]);
        },
        Nbd.ALLOCATION);
  }

  private static void beyond32Bits(Bench bench) throws IOException {
    on(
        bench,
        Mode.EXTENDED,
        "big",
        session -> {
          int id = session.context(Nbd.ALLOCATION);
          List<Extent> extents = session.ask(Ask.status(1L << 38, 1L << 38)).extents(id);
          Check.that(extents.getFirst().bytes() > 1L << 32, "cut: %s", extents.getFirst());
        },
        Nbd.ALLOCATION);
  }
}
