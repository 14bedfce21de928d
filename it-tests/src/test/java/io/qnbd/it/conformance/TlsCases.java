package io.qnbd.it.conformance;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.SocketException;
import java.util.Arrays;
import java.util.List;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;

/** TLS: what comes before it, the way into it, and what holds within ("TLS support"). */
final class TlsCases {
  private static final String ROW = "1.8";
  private static final String EDGE = "6.14";

  /** What a client may ask for besides STARTTLS, ABORT and EXPORT_NAME. */
  private static final int[] OTHERS = {
    Nbd.OPT_LIST,
    Nbd.OPT_PEEK_EXPORT,
    Nbd.OPT_INFO,
    Nbd.OPT_GO,
    Nbd.OPT_STRUCTURED_REPLY,
    Nbd.OPT_LIST_META_CONTEXT,
    Nbd.OPT_SET_META_CONTEXT,
    Nbd.OPT_EXTENDED_HEADERS,
    12,
    Nbd.OPT_NOBODY_KNOWS,
  };

  private TlsCases() {}

  static void addTo(CaseList list) {
    off(list);
    before(list);
    within(list);
    forgotten(list);
    versions(list);
    broken(list);
    endings(list);
    certificates(list);
  }

  private static void off(CaseList list) {
    list.add(
        ROW,
        "off: STARTTLS is POLICY or UNSUP",
        bench ->
            bench
                .plain()
                .haggle(haggling -> {
                  var _ = haggling.ask(Nbd.OPT_STARTTLS).mustEndWith(Nbd.ERR_POLICY, Nbd.ERR_UNSUP);
                  var _ = haggling.info("nobody").mustEndWith(Nbd.ERR_UNKNOWN);
                  var _ = haggling.info("pattern").mustAcknowledge();
                }));
  }

  private static byte[] sound(int option) {
    return switch (option) {
      case Nbd.OPT_INFO, Nbd.OPT_GO -> Haggling.details("disk", Nbd.INFO_BLOCK_SIZE);
      case Nbd.OPT_LIST_META_CONTEXT, Nbd.OPT_SET_META_CONTEXT ->
          Haggling.queries("disk", Nbd.ALLOCATION);
      case Nbd.OPT_NOBODY_KNOWS -> new byte[100_000];
      default -> new byte[0];
    };
  }

  private static void before(CaseList list) {
    for (int option : OTHERS) {
      list.add(
          ROW,
          "required: %s in clear is TLS_REQD".formatted(Nbd.option(option)),
          bench ->
              bench
                  .tlsRequired()
                  .haggle(haggling -> {
                    Answer answer = haggling.ask(option, sound(option));
                    var _ = answer.mustEndWith(Nbd.ERR_TLS_REQD);
                    Check.that(answer.replies().size() == 1, "it told more: %s", answer);
                  }));
    }
    list.add(
        ROW,
        "required: INFO and GO of an unknown export in clear are TLS_REQD",
        bench ->
            bench
                .tlsRequired()
                .haggle(haggling -> {
                  var _ = haggling.info("nobody").mustEndWith(Nbd.ERR_TLS_REQD);
                  byte[] nobody = Haggling.details("nobody");
                  var _ = haggling.ask(Nbd.OPT_GO, nobody).mustEndWith(Nbd.ERR_TLS_REQD);
                }));
    list.add(
        ROW,
        "required: EXPORT_NAME in clear is closed",
        bench -> exportNameCloses(bench.tlsRequired(), 3));
    list.add(
        ROW,
        "required: EXPORT_NAME in clear without fixed newstyle is closed",
        bench -> exportNameCloses(bench.tlsRequired(), 0));
    list.add(ROW, "required: ABORT in clear is ACK", bench -> bench.tlsRequired().haggle(_ -> {}));
    list.add(
        ROW,
        "required: STARTTLS with data is INVALID, and without it ACK",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            var _ = haggling.ask(Nbd.OPT_STARTTLS, new byte[9]).mustEndWith(Nbd.ERR_INVALID);
            haggling.startTls(bench.tls()).leave();
          }
        });
  }

  static void exportNameCloses(Endpoint server, int flags) throws IOException {
    try (Haggling haggling = Haggling.open(server, flags)) {
      byte[] name = new Bytes().text("disk").array();
      haggling.peer().send(Haggling.option(Nbd.OPT_EXPORT_NAME, name));
      haggling.peer().mustEnd();
    }
  }

  private static void within(CaseList list) {
    list.each(ROW, "required: written and read in TLS", TlsCases::writes);
    list.add(
        ROW,
        "required: LIST, INFO and unknown options in TLS are answered as ever",
        bench ->
            inTls(
                bench,
                haggling -> {
                  Answer exports = haggling.ask(Nbd.OPT_LIST).mustAcknowledge();
                  Check.that(exports.exports().size() == 1, "%s", exports.exports());
                  var _ = haggling.info("disk", 0, 1, 2, 3).mustAcknowledge();
                  var _ = haggling.info("nobody").mustEndWith(Nbd.ERR_UNKNOWN);
                  var _ = haggling.ask(12, new byte[3]).mustEndWith(Nbd.ERR_UNSUP);
                  var _ = haggling.ask(Nbd.OPT_LIST, new byte[3]).mustEndWith(Nbd.ERR_INVALID);
                }));
    list.add(
        EDGE,
        "second STARTTLS: INVALID, and TLS goes on",
        bench ->
            inTls(
                bench,
                haggling -> {
                  var _ = haggling.ask(Nbd.OPT_STARTTLS).mustEndWith(Nbd.ERR_INVALID);
                  var _ = haggling.info("disk").mustAcknowledge();
                }));
    list.add(
        ROW,
        "EXPORT_NAME in TLS: served",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            Session session = haggling.startTls(bench.tls()).exportName("disk");
            session.mustBeInStep();
            session.leave();
          }
        });
    list.add(
        ROW,
        "EXPORT_NAME of an unknown export in TLS: closed",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            Peer peer = haggling.startTls(bench.tls()).peer();
            peer.send(Haggling.option(Nbd.OPT_EXPORT_NAME, new Bytes().text("nobody").array()));
            peer.mustEnd();
          }
        });
    list.chunked(ROW, "block status in TLS", TlsCases::status);
  }

  /** A handshake that is in TLS and must still be in step afterwards. */
  static void inTls(Bench bench, Endpoint.Talk talk) throws IOException {
    try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
      talk.with(haggling.startTls(bench.tls()));
      haggling.leave();
    }
  }

  private static void writes(Bench bench, Mode mode) throws IOException {
    try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
      Session session = haggling.startTls(bench.tls()).agree(mode).go("disk");
      byte[] data = Bench.noise(1_000_003, mode.toString().hashCode());
      session.write(12_345, data);
      session.mustHold(12_345, data);
      session.ask(Ask.read(session.bytes(), 1)).mustFail(Nbd.EINVAL);
      session.ask(Ask.write(session.bytes(), (byte) 1)).mustFail(Nbd.ENOSPC);
      session.mustBeInStep();
      session.leave();
    }
  }

  private static void status(Bench bench, Mode mode) throws IOException {
    try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
      var _ = haggling.startTls(bench.tls()).agree(mode);
      var _ = haggling.setContexts("disk", Nbd.ALLOCATION).mustAcknowledge();
      Session session = haggling.go("disk");
      session.ask(Ask.status(0, session.bytes())).mustSucceed();
      session.leave();
    }
  }

  private static void forgotten(CaseList list) {
    for (Mode mode : Mode.CHUNKED) {
      list.add(
          EDGE,
          "%s replies agreed on before STARTTLS: forgotten".formatted(mode),
          bench -> {
            try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
              var _ = haggling.agree(mode).startTls(bench.tls());
              Session session = haggling.go("disk"); // expects simple replies
              Check.that(!session.has(Nbd.SEND_DF), "DF without chunks");
              session.mustBeInStep();
              session.leave();
            }
          });
      list.add(
          EDGE,
          "contexts selected before STARTTLS: forgotten, %s replies".formatted(mode),
          bench -> {
            try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
              var _ = haggling.agree(mode).setContexts("disk", Nbd.ALLOCATION);
              Session session = haggling.startTls(bench.tls()).agree(mode).go("disk");
              session.ask(Ask.status(0, 512)).mustFail(Nbd.EINVAL);
              session.mustBeInStep();
              session.leave();
            }
          });
    }
    list.add(
        EDGE,
        "SET_META_CONTEXT behind STARTTLS, chunks agreed on before it: INVALID",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsOptional())) {
            var _ = haggling.agree(Mode.STRUCTURED).startTls(bench.tls());
            var _ = haggling.setContexts("disk", Nbd.ALLOCATION).mustEndWith(Nbd.ERR_INVALID);
            haggling.leave();
          }
        });
  }

  private static void versions(CaseList list) {
    for (String version : List.of("TLSv1.2", "TLSv1.3")) {
      list.add(
          ROW,
          version + ": served",
          bench -> {
            try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
              Session session = haggling.startTls(bench.tls(version)).go("disk");
              session.mustBeInStep();
              session.leave();
            }
          });
    }
    list.add(EDGE, "a raw hello of TLS 1.2: answered", bench -> hello(bench, 3, true));
    list.add(EDGE, "a raw hello of TLS 1.1: refused", bench -> hello(bench, 2, false));
    list.add(EDGE, "a raw hello of TLS 1.0: refused", bench -> hello(bench, 1, false));
  }

  /**
   * Sends a hello for version 1.{@code minor - 1} as old clients spell it; the first record of an
   * answer is of the handshake (22) when it is accepted.
   */
  private static void hello(Bench bench, int minor, boolean accepted) throws IOException {
    try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
      var _ = haggling.ask(Nbd.OPT_STARTTLS).mustAcknowledge();
      haggling.peer().send(rawHello(minor));
      byte[] first = new byte[1];
      int got = haggling.peer().readSome(first, 0);
      boolean answered = got == 1 && first[0] == 22;
      Check.that(answered == accepted, "the server's first record is of type %d", first[0]);
      if (!accepted) {
        var _ = haggling.peer().countToEnd();
      }
    }
  }

  private static byte[] rawHello(int minor) {
    int[] suites = {0xc02f, 0xc030, 0xc02b, 0xc02c, 0xc013, 0xc014, 0xc009, 0xc00a, 0x9c, 0x2f};
    Bytes list = new Bytes();
    for (int suite : suites) {
      list.u16(suite);
    }
    Bytes extensions = new Bytes();
    extensions.u16(10).u16(8).u16(6).u16(0x17).u16(0x18).u16(0x1d); // groups
    extensions.u16(11).u16(2).raw((byte) 1, (byte) 0); // uncompressed points
    extensions.u16(13).u16(14).u16(12); // signatures
    for (int signature : new int[] {0x0403, 0x0804, 0x0401, 0x0503, 0x0501, 0x0201}) {
      extensions.u16(signature);
    }
    byte[] tail = extensions.array();
    Bytes body = new Bytes().raw((byte) 3, (byte) minor).raw(new byte[32]).raw((byte) 0);
    body.u16(2 * suites.length).raw(list.array()).raw((byte) 1, (byte) 0);
    byte[] hello = body.u16(tail.length).raw(tail).array();
    Bytes record = new Bytes().raw((byte) 22, (byte) 3, (byte) 1).u16(hello.length + 4);
    return record.raw((byte) 1, (byte) 0).u16(hello.length).raw(hello).array();
  }

  private static void broken(CaseList list) {
    list.add(
        EDGE,
        "an option in clear behind STARTTLS in one segment: never answered",
        TlsCases::injected);
    list.add(
        EDGE,
        "options in clear where TLS should begin: closed, never answered",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            var _ = haggling.ask(Nbd.OPT_STARTTLS).mustAcknowledge();
            ByteArrayOutputStream options = new ByteArrayOutputStream();
            for (int count = 0; count < 50; count++) {
              options.writeBytes(Haggling.option(Nbd.OPT_LIST));
            }
            haggling.peer().sendToWhomMayBeGone(options.toByteArray());
            byte[] first = new byte[4096];
            int got = endOr(haggling.peer(), first);
            byte[] magic = new Bytes().u64(Nbd.OPTION_REPLY_MAGIC).array();
            boolean inClear = got >= 8 && Arrays.equals(Arrays.copyOf(first, 8), magic);
            Check.that(!inClear, "answered in clear");
            var _ = haggling.peer().countToEnd();
          }
        });
    list.add(
        EDGE,
        "noise where TLS should begin: closed",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            var _ = haggling.ask(Nbd.OPT_STARTTLS).mustAcknowledge();
            haggling.peer().sendToWhomMayBeGone(Bench.noise(5000, 3));
            var _ = haggling.peer().countToEnd();
          }
          inTls(bench, haggling -> haggling.info("disk").mustAcknowledge());
        });
    list.add(
        EDGE,
        "client that leaves within the TLS handshake: no harm",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            var _ = haggling.ask(Nbd.OPT_STARTTLS).mustAcknowledge();
            haggling.peer().send(Arrays.copyOf(rawHello(3), 50));
            haggling.peer().reset();
          }
          inTls(bench, haggling -> haggling.info("disk").mustAcknowledge());
        });
  }

  private static int endOr(Peer peer, byte[] target) {
    try {
      return peer.readSome(target, 0);
    } catch (IOException e) {
      return -1; // a reset
    }
  }

  /** What came in clear may fail the connection or be lost; it must not count within TLS. */
  private static void injected(Bench bench) throws IOException {
    for (Endpoint server : List.of(bench.tlsRequired(), bench.tlsOptional())) {
      try (Haggling haggling = Haggling.open(server)) {
        byte[] both =
            new Bytes()
                .raw(Haggling.option(Nbd.OPT_STARTTLS))
                .raw(Haggling.option(Nbd.OPT_LIST))
                .array();
        haggling.peer().send(both);
        try {
          var _ = haggling.answer(Nbd.OPT_STARTTLS).mustAcknowledge();
          haggling.peer().startTls(bench.tls());
        } catch (EOFException | SSLException | SocketException e) {
          continue; // refused
        }
        haggling.leave(); // the reply to ABORT must be the first
      }
    }
  }

  private static void certificates(CaseList list) {
    list.add(
        EDGE,
        "client with a certificate where one is needed: served",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsVerifying())) {
            Session session = haggling.startTls(bench.tlsWithCertificate()).go("disk");
            session.mustBeInStep();
            session.leave();
          }
        });
    for (String version : List.of("TLSv1.2", "TLSv1.3")) {
      list.add(
          EDGE,
          "client without a certificate where one is needed, %s: closed".formatted(version),
          bench -> mustBeRefused(bench.tlsVerifying(), bench.tls(version)));
    }
    list.add(
        EDGE,
        "client with a certificate of another authority: closed",
        bench -> mustBeRefused(bench.tlsVerifying(), bench.tlsWithForeignCertificate()));
  }

  /** With TLS 1.3 a client learns only behind its own part of the handshake that it is refused. */
  private static void mustBeRefused(Endpoint server, SSLEngine engine) throws IOException {
    try (Haggling haggling = Haggling.open(server)) {
      Answer answer;
      try {
        answer = haggling.startTls(engine).ask(Nbd.OPT_LIST);
      } catch (EOFException | SSLException | SocketException e) {
        return; // refused
      }
      throw new AssertionError("it was served: " + answer);
    }
  }

  private static void endings(CaseList list) {
    list.each(
        EDGE,
        "DISC in TLS: replies, close_notify, closed",
        (bench, mode) -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            Session session = haggling.startTls(bench.tls()).agree(mode).go("disk");
            Ask[] asks = new Ask[9];
            for (int index = 0; index < 8; index++) {
              asks[index] = Ask.write(index * 100_000L, Bench.noise(100_000, index));
            }
            asks[8] = Ask.of(Nbd.DISC, 0, 0);
            session.send(asks);
            for (Reply reply : session.awaitAll()) {
              reply.mustSucceed();
            }
            session.peer().mustEndWithCloseNotify();
          }
        });
    list.add(
        ROW,
        "ABORT in TLS: ACK, close_notify, closed",
        bench -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            var _ = haggling.startTls(bench.tls()).ask(Nbd.OPT_ABORT).mustAcknowledge();
            haggling.peer().mustEndWithCloseNotify();
          }
        });
    list.each(
        "6.1",
        "half-close in TLS behind 16 reads: 16 replies, closed",
        (bench, mode) -> {
          try (Haggling haggling = Haggling.open(bench.tlsRequired())) {
            Session session = haggling.startTls(bench.tls("TLSv1.3")).agree(mode).go("disk");
            Ask[] asks = new Ask[16];
            Arrays.setAll(asks, index -> Ask.read(index * 4096L, 4096));
            session.send(asks);
            session.peer().halfClose();
            for (Reply reply : session.awaitAll()) {
              reply.mustSucceed();
            }
            session.peer().mustEnd();
          }
        });
  }
}
