package io.qnbd.it.conformance;

import java.io.EOFException;
import java.io.IOException;
import java.util.Arrays;

/** The first messages, EXPORT_NAME as old clients use it, and strings ("Newstyle negotiation"). */
final class GreetingCases {
  private static final String ROW = "1.1";

  private GreetingCases() {}

  static void addTo(CaseList list) {
    list.add(ROW, "greeting: both magics, bits 0 and 1, in one piece", GreetingCases::greets);
    for (int flags : new int[] {4, 0x10000, 0x80000000, 0x80000003, 0xffffffff}) {
      String title = "unknown client flags 0x%x: closed".formatted(flags);
      list.add(ROW, title, bench -> refusesFlags(bench.plain(), flags));
    }
    for (int flags = 0; flags <= 3; flags++) {
      int chosen = flags;
      String title = "client flags %d, EXPORT_NAME: %s".formatted(flags, padding(flags));
      list.add(ROW, title, bench -> exportName(bench.plain(), chosen));
    }
    list.add(
        ROW, "LIST without fixed newstyle: closed or answered", GreetingCases::listsForNonFixed);
    list.add(ROW, "STARTTLS without fixed newstyle: never ACK", GreetingCases::noTlsForNonFixed);
    list.add(
        ROW, "a byte a segment, through handshake and requests: served", GreetingCases::bytewise);
    list.add(ROW, "flags and first option in one segment: served", GreetingCases::inOneSegment);
    list.add(ROW, "wrong option magic: closed", bench -> wrongMagic(bench.plain()));
    list.add(ROW, "name of 4096 bytes: UNKNOWN", bench -> longName(bench, 4096, Nbd.ERR_UNKNOWN));
    list.add(ROW, "name of 4097 bytes: INVALID", bench -> longName(bench, 4097, Nbd.ERR_INVALID));
    list.add(
        ROW,
        "name with NUL: INVALID",
        bench -> oddName(bench, new byte[] {'r', 'w', 0}, Nbd.ERR_INVALID));
    list.add(
        ROW,
        "name that is no UTF-8: INVALID or UNKNOWN",
        bench -> oddName(bench, new byte[] {(byte) 0xc3, 0x28}, Nbd.ERR_INVALID, Nbd.ERR_UNKNOWN));
    list.add(
        ROW,
        "client that leaves after the greeting: no harm",
        bench -> {
          Peer.connect(bench.plain().port()).close();
          bench.plain().haggle(_ -> {});
        });
  }

  private static String padding(int flags) {
    return (flags & Nbd.NO_ZEROES) == 0 ? "124 zeroes" : "no zeroes";
  }

  private static void greets(Bench bench) throws IOException {
    try (Peer peer = Peer.connect(bench.plain().port())) {
      byte[] first = new byte[64];
      int count = peer.readSome(first, 0);
      Check.that(count == 18, "%d bytes came first", count);
      byte[] expected = new Bytes().u64(Nbd.GREETING_MAGIC).u64(Nbd.OPTION_MAGIC).u16(3).array();
      Check.that(Arrays.equals(Arrays.copyOf(first, 18), expected), "another greeting");
    }
  }

  private static void refusesFlags(Endpoint server, int flags) throws IOException {
    try (Haggling haggling = Haggling.open(server, flags)) {
      haggling.peer().mustEnd();
    }
  }

  private static void exportName(Endpoint server, int flags) throws IOException {
    try (Haggling haggling = Haggling.open(server, flags)) {
      Session session = haggling.exportName("pattern");
      Check.that(session.bytes() == Bench.PATTERN_BYTES, "%d bytes", session.bytes());
      session.mustBeInStep();
      session.leave();
    }
  }

  private static void listsForNonFixed(Bench bench) throws IOException {
    try (Haggling haggling = Haggling.open(bench.plain(), 0)) {
      haggling.peer().send(Haggling.option(Nbd.OPT_LIST));
      try {
        var _ = haggling.answer(Nbd.OPT_LIST);
      } catch (EOFException e) {
        return; // an old client could not read an answer
      }
      haggling.leave();
    }
  }

  private static void noTlsForNonFixed(Bench bench) throws IOException {
    try (Haggling haggling = Haggling.open(bench.tlsOptional(), 0)) {
      haggling.peer().send(Haggling.option(Nbd.OPT_STARTTLS));
      try {
        var _ = haggling.answer(Nbd.OPT_STARTTLS).mustFail();
      } catch (EOFException e) {
        return; // an old client could not read an answer
      }
    }
  }

  private static void bytewise(Bench bench) throws IOException {
    try (Peer peer = Peer.connect(bench.plain().port())) {
      var _ = Haggling.greeting(peer);
      Bytes all = new Bytes().u32(3).raw(Haggling.option(Nbd.OPT_GO, Haggling.details("pattern")));
      for (byte each : all.array()) {
        peer.send(each);
      }
      OptionReply reply = OptionReply.read(peer, Nbd.OPT_GO);
      while (!reply.last()) {
        reply = OptionReply.read(peer, Nbd.OPT_GO);
      }
      Check.that(!reply.failed(), "GO was refused");
      for (byte each : Ask.read(0, 16).cookie(7).encode(Mode.SIMPLE)) {
        peer.send(each);
      }
      byte[] expected =
          new Bytes()
              .u32(Nbd.SIMPLE_REPLY_MAGIC)
              .u32(0)
              .u64(7)
              .raw(Arrays.copyOf(bench.pattern(), 16))
              .array();
      Check.that(Arrays.equals(peer.read(32), expected), "another reply");
    }
  }

  private static void inOneSegment(Bench bench) throws IOException {
    try (Peer peer = Peer.connect(bench.plain().port())) {
      peer.send(new Bytes().u32(3).raw(Haggling.option(Nbd.OPT_ABORT)).array());
      var _ = Haggling.greeting(peer);
      OptionReply reply = OptionReply.read(peer, Nbd.OPT_ABORT);
      Check.that(reply.type() == Nbd.REP_ACK, "ABORT was refused");
      peer.mustEnd();
    }
  }

  private static void wrongMagic(Endpoint server) throws IOException {
    server.haggleToTheEnd(haggling -> {
      byte[] option = Haggling.option(Nbd.OPT_LIST);
      option[3] ^= 1;
      haggling.peer().sendToWhomMayBeGone(option);
      haggling.peer().mustEnd();
    });
  }

  private static void longName(Bench bench, int length, int error) throws IOException {
    bench
        .plain()
        .haggle(haggling -> {
          String name = "n".repeat(length);
          var _ = haggling.info(name).mustEndWith(error);
          var _ = haggling.ask(Nbd.OPT_GO, Haggling.details(name)).mustEndWith(error);
        });
  }

  private static void oddName(Bench bench, byte[] name, int... errors) throws IOException {
    byte[] data = new Bytes().u32(name.length).raw(name).u16(0).array();
    bench
        .plain()
        .haggle(haggling -> {
          var _ = haggling.ask(Nbd.OPT_INFO, data).mustEndWith(errors);
          var _ = haggling.ask(Nbd.OPT_GO, data).mustEndWith(errors);
        });
  }
}
