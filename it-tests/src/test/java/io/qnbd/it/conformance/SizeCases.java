package io.qnbd.it.conformance;

import java.io.IOException;
import java.nio.ByteBuffer;

/** Block sizes and payloads at their limits and beyond ("Size constraints"). */
final class SizeCases {
  private static final String ROW = "1.6";
  private static final String EDGE = "6.7";

  private SizeCases() {}

  static void addTo(CaseList list) {
    list.each(ROW, "BLOCK_SIZE: powers of two in their order", SizeCases::announced);
    list.each(
        ROW,
        "32 MiB written and read by a client that did not ask for sizes",
        (bench, mode) -> unasked(bench, mode, Nbd.PAYLOAD_BYTES_DEFAULT));
    list.each(
        ROW,
        "an odd byte by a client that did not ask for sizes",
        (bench, mode) -> unasked(bench, mode, 1));
    list.each(ROW, "WRITE and READ of the whole payload that is offered", SizeCases::whole);
    for (int type : new int[] {Nbd.TRIM, Nbd.WRITE_ZEROES, Nbd.CACHE}) {
      list.each(
          EDGE,
          Nbd.command(type) + " longer than any payload: done or refused, in step",
          (bench, mode) -> effects(bench, mode, type));
    }
    list.each(EDGE, "READ beyond the payload: refused, or in chunks", SizeCases::readBeyond);
    list.each(EDGE, "READ of 2^32 - 1 bytes: refused, or in chunks", SizeCases::readHuge);
    list.each(
        EDGE,
        "READ of 2^32 - 1 bytes past the end: EINVAL",
        (bench, mode) ->
            bench
                .plain()
                .serve(
                    mode,
                    "pattern",
                    session -> session.ask(Ask.read(0, 0xffff_ffffL)).mustFail(Nbd.EINVAL)));
    list.each(
        EDGE,
        "WRITE of 2^32 - 512 bytes, header only: refused and closed",
        (bench, mode) -> headerOnly(bench, mode, 0xffff_fe00L));
    list.each(EDGE, "WRITE beyond the payload: refused or closed", SizeCases::writeBeyond);
  }

  private static void announced(Bench bench, Mode mode) throws IOException {
    for (String name : Bench.PLAIN_EXPORTS) {
      bench
          .plain()
          .haggle(haggling -> {
            Answer answer = haggling.agree(mode).info(name, Nbd.INFO_BLOCK_SIZE);
            ByteBuffer sizes = answer.mustAcknowledge().infos().get(Nbd.INFO_BLOCK_SIZE);
            if (sizes == null) {
              return; // the defaults are meant
            }
            long least = sizes.getInt() & 0xffffffffL;
            long preferred = sizes.getInt() & 0xffffffffL;
            long most = sizes.getInt() & 0xffffffffL;
            Check.that(
                Long.bitCount(least) == 1 && least <= 65_536, "the least block is %d", least);
            Check.that(
                Long.bitCount(preferred) == 1 && preferred >= Math.max(512, least),
                "the preferred block is %d",
                preferred);
            Check.that(most >= preferred && most >= 1 << 20, "the payload is %d", most);
            ByteBuffer export = answer.infos().getOrDefault(0, ByteBuffer.allocate(8));
            Check.that(export.getLong() % least == 0, "the size is not in blocks");
          });
    }
  }

  private static void unasked(Bench bench, Mode mode, int length) throws IOException {
    long place = bench.fresh(Nbd.PAYLOAD_BYTES_DEFAULT + (1 << 20));
    byte[] data = Bench.noise(length, place);
    bench
        .plain()
        .haggleToTheEnd(haggling -> {
          Session session = haggling.agree(mode).go("rw");
          session.write(place + 4095, data);
          session.mustHold(place + 4095, data);
          session.mustBeInStep();
          session.leave();
        });
  }

  private static void whole(Bench bench, Mode mode) throws IOException {
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              int most = (int) Math.min(session.payloadMax(), 128 << 20);
              long place = bench.fresh(most);
              byte[] data = Bench.noise(most, place);
              session.write(place, data);
              session.mustHold(place, data);
              session.ask(Ask.of(Nbd.TRIM, place, most)).mustSucceed();
            });
  }

  private static void effects(Bench bench, Mode mode, int type) throws IOException {
    long place = bench.fresh(1 << 20);
    long length = mode == Mode.EXTENDED ? 6L << 30 : 0xffff_fe00L;
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              session.ask(Ask.of(type, place, 48 << 20)).mustAnswer(0, Nbd.EINVAL, Nbd.EOVERFLOW);
              Reply reply = session.ask(Ask.of(type, Bench.EMPTY_FROM, length));
              reply.mustAnswer(0, Nbd.EINVAL, Nbd.EOVERFLOW);
            });
  }

  private static void readBeyond(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(128 << 20);
    bench
        .plain()
        .serve(
            mode,
            "rw",
            session -> {
              Ask ask = Ask.read(place, session.payloadMax() + 512);
              if (mode.chunked()) {
                session.ask(ask).mustAnswer(0, Nbd.EINVAL, Nbd.EOVERFLOW);
              } else {
                session.ask(ask).mustFail(Nbd.EINVAL, Nbd.EOVERFLOW);
              }
            });
  }

  private static void readHuge(Bench bench, Mode mode) throws IOException {
    bench
        .readOnly()
        .serve(
            mode,
            "big",
            session -> {
              long at = 1L << 38;
              Reply reply = session.ask(Ask.read(at, 0xffff_ffffL));
              reply.mustAnswer(mode.chunked() ? 0 : Nbd.EINVAL, Nbd.EINVAL, Nbd.EOVERFLOW);
              if (mode == Mode.EXTENDED) {
                session.ask(Ask.read(at, 1L << 33)).mustAnswer(0, Nbd.EINVAL, Nbd.EOVERFLOW);
              }
            });
  }

  private static void headerOnly(Bench bench, Mode mode, long length) throws IOException {
    try (Session session = bench.plain().open(mode, "rw")) {
      Ask ask = Ask.writeWithoutData(0, length);
      session.send(ask);
      var _ = session.peer().countToEnd();
    }
    bench.plain().serve(mode, "rw", Session::mustBeInStep);
  }

  private static void writeBeyond(Bench bench, Mode mode) throws IOException {
    long place = bench.fresh(128 << 20);
    try (Session session = bench.plain().open(mode, "rw")) {
      int length = (int) Math.min(session.payloadMax() + 512, 256 << 20);
      Ask ask = session.numbered(Ask.write(place, new byte[length]));
      session.peer().sendToWhomMayBeGone(ask.encode(mode));
      session.peer().sendToWhomMayBeGone(Ask.of(Nbd.DISC, 0, 0).encode(mode));
      var _ = session.peer().countToEnd();
    }
    bench.plain().serve(mode, "rw", Session::mustBeInStep);
  }
}
