package io.qnbd.it.conformance;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** The checker passes every reply that the protocol allows, and finds what it forbids. */
final class ReplyCheckerTest {
  private static final long COOKIE = 77;
  private static final int DONE = Nbd.CHUNK_DONE;
  private static final Ask READ = Ask.read(1000, 100).cookie(COOKIE);
  private static final Ask DF = READ.with(Nbd.DF);
  private static final Ask WRITE = Ask.write(1000, new byte[100]).cookie(COOKIE);
  private static final Ask STATUS = Ask.status(1024, 4096).cookie(COOKIE);
  private static final Ask ONE = STATUS.with(Nbd.REQ_ONE);
  private static final Ask FAST = Ask.zeroes(0, 512).cookie(COOKIE).with(Nbd.FAST_ZERO);
  private static final Map<Integer, String> CONTEXTS = Map.of(3, Nbd.ALLOCATION, 4, Nbd.DEPTH);

  private final List<DynamicTest> tests = new ArrayList<>();

  private void passes(String title, Mode mode, Ask ask, int error, Bytes reply) {
    tests.add(
        dynamicTest("passes: " + title, () -> assertEquals(error, check(mode, ask, reply).error)));
  }

  private void finds(String title, Mode mode, Ask ask, Bytes reply) {
    tests.add(
        dynamicTest(
            "finds: " + title,
            () -> assertThrows(AssertionError.class, () -> check(mode, ask, reply))));
  }

  /** Lets the checker read these bytes from a server that says just that and closes. */
  private static Reply check(Mode mode, Ask ask, Bytes bytes) throws IOException {
    try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
        Peer peer = Peer.connect(server.getLocalPort());
        Socket other = server.accept()) {
      other.getOutputStream().write(bytes.array());
      other.shutdownOutput();
      ReplyChecker checker = new ReplyChecker(mode, 1 << 20, 65_536, CONTEXTS);
      checker.expect(ask, COOKIE);
      Reply reply = null;
      while (reply == null) {
        reply = checker.next(peer);
      }
      peer.mustEnd();
      return reply;
    }
  }

  private static Bytes simple(int error, int dataBytes) {
    Bytes out = new Bytes().u32(Nbd.SIMPLE_REPLY_MAGIC).u32(error).u64(COOKIE);
    return out.raw(new byte[dataBytes]);
  }

  private static Bytes chunk(Bytes before, int flags, int type, Bytes payload) {
    byte[] body = payload.array();
    before.u32(Nbd.CHUNK_MAGIC).u16(flags).u16(type).u64(COOKIE).u32(body.length);
    return before.raw(body);
  }

  private static Bytes chunk(int flags, int type, Bytes payload) {
    return chunk(new Bytes(), flags, type, payload);
  }

  private static Bytes wide(int type, long offset, Bytes payload) {
    byte[] body = payload.array();
    Bytes out = new Bytes().u32(Nbd.EXTENDED_CHUNK_MAGIC).u16(DONE).u16(type).u64(COOKIE);
    return out.u64(offset).u64(body.length).raw(body);
  }

  private static Bytes none() {
    return new Bytes();
  }

  private static Bytes data(long offset, int length) {
    return new Bytes().u64(offset).raw(new byte[length]);
  }

  private static Bytes hole(long offset, int length) {
    return new Bytes().u64(offset).u32(length);
  }

  private static Bytes error(int error, String text) {
    return new Bytes().u32(error).u16(text.length()).text(text);
  }

  private static Bytes extents(int context, int... lengthsAndFlags) {
    Bytes out = new Bytes().u32(context);
    for (int each : lengthsAndFlags) {
      out.u32(each);
    }
    return out;
  }

  @TestFactory
  Stream<DynamicTest> ofSimpleReplies() {
    Mode mode = Mode.SIMPLE;
    passes("data of a read", mode, READ, 0, simple(0, 100));
    passes("an error of a read", mode, READ, 22, simple(22, 0));
    passes("a write", mode, WRITE, 0, simple(0, 0));
    passes("an error of a write", mode, WRITE, 28, simple(28, 0));
    finds("data behind an error", mode, READ, simple(22, 100));
    finds("an unknown error", mode, WRITE, simple(2, 0));
    finds("ENOMEM", mode, WRITE, simple(12, 0));
    finds("ENOTSUP of a write", mode, WRITE, simple(95, 0));
    finds("EOVERFLOW of a short read", mode, READ, simple(75, 0));
    passes("ENOTSUP of a fast zero", mode, FAST, 95, simple(95, 0));
    finds("a chunk", mode, WRITE, chunk(DONE, 0, none()));
    finds("another cookie", mode, WRITE.cookie(1), simple(0, 0).u32(1));
    finds("two replies", mode, WRITE, simple(0, 0).raw(simple(0, 0).array()));
    finds("another magic", mode, WRITE, new Bytes().u32(0x67446699).u32(0).u64(COOKIE));
    return tests.stream();
  }

  @TestFactory
  Stream<DynamicTest> ofReadsInChunks() {
    Mode mode = Mode.STRUCTURED;
    Bytes late = chunk(0, 1, data(1050, 50));
    passes("one chunk", mode, READ, 0, chunk(DONE, 1, data(1000, 100)));
    passes("parts in any order", mode, READ, 0, chunk(late, DONE, 1, data(1000, 50)));
    Bytes holed = chunk(0, 2, hole(1000, 99));
    chunk(holed, 0, 1, data(1099, 1));
    passes("a hole, data and NONE", mode, READ, 0, chunk(holed, DONE, 0, none()));
    passes("an error", mode, READ, 22, chunk(DONE, 0x8001, error(22, "no")));
    Bytes partly = chunk(0, 1, data(1000, 100));
    Bytes at = error(5, "bad").u64(1050);
    passes("data, then its error", mode, READ, 5, chunk(partly, DONE, 0x8002, at));
    finds("a simple reply", mode, READ, simple(0, 100));
    finds("a simple error", mode, READ, simple(22, 0));
    finds("too little", mode, READ, chunk(DONE, 1, data(1000, 99)));
    finds("too much", mode, READ, chunk(DONE, 1, data(1000, 101)));
    finds("data in front", mode, READ, chunk(DONE, 1, data(999, 100)));
    finds("nothing", mode, READ, chunk(DONE, 0, none()));
    finds("an empty chunk", mode, READ, chunk(0, 1, data(1000, 0)));
    finds("an empty hole", mode, READ, chunk(0, 2, hole(1000, 0)));
    Bytes twice = chunk(0, 1, data(1000, 60));
    finds("an overlap", mode, READ, chunk(twice, DONE, 1, data(1050, 50)));
    finds("NONE in the middle", mode, READ, chunk(0, 0, none()));
    finds("NONE with a payload", mode, READ, chunk(DONE, 0, data(1, 1)));
    finds("an unknown flag", mode, READ, chunk(3, 1, data(1000, 100)));
    finds("an unknown type", mode, READ, chunk(DONE, 3, data(1000, 100)));
    finds("a status", mode, READ, chunk(DONE, 5, extents(3, 100, 0)));
    finds("the error 0", mode, READ, chunk(DONE, 0x8001, error(0, "")));
    finds("an error far away", mode, READ, chunk(DONE, 0x8002, error(5, "").u64(1100)));
    finds("a message too long", mode, READ, chunk(DONE, 0x8001, new Bytes().u32(5).u16(9).u32(0)));
    Bytes errors = chunk(0, 0x8001, error(5, ""));
    finds("two errors", mode, READ, chunk(errors, DONE, 0x8001, error(5, "")));
    Bytes early = chunk(0, 0x8002, error(5, "").u64(1050));
    finds("data behind its error", mode, READ, chunk(early, DONE, 1, data(1000, 100)));
    passes("EOVERFLOW with DF", mode, DF, 75, chunk(DONE, 0x8001, error(75, "")));
    finds("EOVERFLOW without DF", mode, READ, chunk(DONE, 0x8001, error(75, "")));
    Bytes half = chunk(0, 1, data(1000, 50));
    finds("two parts with DF", mode, DF, chunk(half, DONE, 1, data(1050, 50)));
    finds("content of a write", mode, WRITE, chunk(DONE, 1, data(1000, 100)));
    passes("a simple reply to a write", mode, WRITE, 0, simple(0, 0));
    finds("a chunk of the other kind", mode, READ, wide(1, 1000, data(1000, 100)));
    return tests.stream();
  }

  @TestFactory
  Stream<DynamicTest> ofStatus() {
    Mode mode = Mode.STRUCTURED;
    Bytes first = chunk(0, 5, extents(4, 4096, 2));
    passes("any order", mode, STATUS, 0, chunk(first, DONE, 5, extents(3, 512, 0, 3584, 3)));
    Bytes longer = chunk(0, 5, extents(4, 512, 0));
    passes("less and more", mode, STATUS, 0, chunk(longer, DONE, 5, extents(3, 512, 0, 65_536, 3)));
    finds("one context of two", mode, STATUS, chunk(DONE, 5, extents(3, 4096, 0)));
    Bytes same = chunk(0, 5, extents(3, 4096, 0));
    finds("one context twice", mode, STATUS, chunk(same, DONE, 5, extents(3, 4096, 0)));
    finds("a foreign context", mode, STATUS, chunk(0, 5, extents(9, 4096, 0)));
    finds("no extent", mode, STATUS, chunk(0, 5, extents(3)));
    finds("half an extent", mode, STATUS, chunk(0, 5, extents(3, 4096)));
    finds("an empty extent", mode, STATUS, chunk(0, 5, extents(3, 0, 0)));
    finds("an extent too many", mode, STATUS, chunk(0, 5, extents(3, 4096, 0, 512, 3)));
    finds("beyond the export", mode, STATUS, chunk(0, 5, extents(3, 1 << 20, 0)));
    finds("an undefined state", mode, STATUS, chunk(0, 5, extents(3, 4096, 4)));
    finds("an odd extent", mode, STATUS, chunk(0, 5, extents(3, 100, 0, 412, 3)));
    finds("two with REQ_ONE", mode, ONE, chunk(0, 5, extents(3, 512, 0, 512, 3)));
    finds("too long with REQ_ONE", mode, ONE, chunk(0, 5, extents(3, 8192, 0)));
    finds("a simple success", mode, STATUS, simple(0, 0));
    finds("the wide kind", mode, STATUS, chunk(0, 6, extents(3, 1, 0, 4096, 0, 0)));
    passes("a simple error", mode, STATUS, 22, simple(22, 0));
    return tests.stream();
  }

  @TestFactory
  Stream<DynamicTest> ofExtendedReplies() {
    Mode mode = Mode.EXTENDED;
    passes("data", mode, READ, 0, wide(1, 1000, data(1000, 100)));
    passes("a write", mode, WRITE, 0, wide(0, 1000, none()));
    finds("another offset", mode, WRITE, wide(0, 1001, none()));
    finds("a simple reply", mode, WRITE, simple(0, 0));
    finds("a compact chunk", mode, WRITE, chunk(DONE, 0, none()));
    Ask one = Ask.statusOf(1024, 4096, 3).cookie(COOKIE);
    Bytes extent = extents(3, 1).u64(4096).u64(3);
    passes("one context on demand", mode, one, 0, wide(6, 1024, extent));
    finds("a context not asked for", mode, one, wide(6, 1024, extents(4, 1).u64(4096).u64(3)));
    finds("a wrong count", mode, one, wide(6, 1024, extents(3, 2).u64(4096).u64(3)));
    finds("a state too wide", mode, one, wide(6, 1024, extents(3, 1).u64(4096).u64(1L << 32)));
    finds("the narrow kind", mode, one, wide(5, 1024, extents(3, 4096, 0)));
    return tests.stream();
  }
}
