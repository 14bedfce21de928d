package io.qnbd.it.conformance;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * A connection that has chosen its export. Every reply is checked while it is read.
 *
 * <p>Owner: the thread of the case.
 */
final class Session implements AutoCloseable {
  /** The export as the server described it. */
  record Export(long bytes, int flags) {
    boolean has(int flag) {
      return (flags & flag) != 0;
    }
  }

  private final Peer peer;
  private final Mode mode;
  private final Export export;
  private final long payloadMax;
  private final Map<Integer, String> contexts;
  private final ReplyChecker checker;
  private final List<Reply> unclaimed = new ArrayList<>();
  private long nextCookie = 0x1111_2222_3333_0000L;

  Session(Peer peer, Mode mode, Export export, long payloadMax, Map<Integer, String> contexts) {
    this.peer = peer;
    this.mode = mode;
    this.export = export;
    this.payloadMax = payloadMax;
    this.contexts = new TreeMap<>(contexts);
    this.checker = new ReplyChecker(mode, export.bytes, payloadMax, contexts);
  }

  Peer peer() {
    return peer;
  }

  Mode mode() {
    return mode;
  }

  long bytes() {
    return export.bytes;
  }

  boolean has(int flag) {
    return export.has(flag);
  }

  /** The longest payload that the server takes, by its word or by the protocol's default. */
  long payloadMax() {
    return payloadMax;
  }

  /** The id of a selected context. */
  int context(String name) {
    for (Map.Entry<Integer, String> each : contexts.entrySet()) {
      if (each.getValue().equals(name)) {
        return each.getKey();
      }
    }
    throw new AssertionError(name + " was not selected, but " + contexts);
  }

  /** Sends requests in one segment and returns them with their cookies. */
  List<Ask> send(Ask... asks) throws IOException {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    List<Ask> sent = new ArrayList<>();
    for (Ask ask : asks) {
      Ask numbered = numbered(ask);
      sent.add(numbered);
      all.writeBytes(numbered.encode(mode));
    }
    peer.send(all.toByteArray());
    return sent;
  }

  /** Gives the request a cookie and expects its reply, for a caller that sends it itself. */
  Ask numbered(Ask ask) {
    Long cookie = ask.cookie();
    Ask numbered = cookie == null ? ask.cookie(nextCookie++) : ask;
    if (ask.type() != Nbd.DISC) {
      Long given = numbered.cookie();
      checker.expect(numbered, given == null ? 0 : given);
    }
    return numbered;
  }

  /** Sends a request and waits for its reply. */
  Reply ask(Ask ask) throws IOException {
    return await(send(ask).getFirst());
  }

  /** Waits for the reply to a request that was sent. */
  Reply await(Ask sent) throws IOException {
    while (true) {
      for (Reply reply : unclaimed) {
        if (reply.ask.equals(sent)) {
          unclaimed.remove(reply);
          return reply;
        }
      }
      unclaimed.add(nextReply());
    }
  }

  /** Waits for the reply that is complete next, whichever it is. */
  Reply nextReply() throws IOException {
    Reply reply = null;
    while (reply == null) {
      reply = checker.next(peer);
    }
    return reply;
  }

  /** Waits for the replies to everything that was sent. */
  List<Reply> awaitAll() throws IOException {
    List<Reply> replies = new ArrayList<>(unclaimed);
    unclaimed.clear();
    while (checker.waiting()) {
      replies.add(nextReply());
    }
    return replies;
  }

  byte[] read(long offset, int length) throws IOException {
    return ask(Ask.read(offset, length)).data();
  }

  void write(long offset, byte... data) throws IOException {
    var _ = ask(Ask.write(offset, data)).mustSucceed();
  }

  /** Fails unless the export holds these bytes there. */
  void mustHold(long offset, byte... expected) throws IOException {
    int at = Arrays.mismatch(expected, read(offset, expected.length));
    Check.that(at < 0, "the byte at 0x%x differs", offset + at);
  }

  /** Fails unless the next request is understood and answered. */
  void mustBeInStep() throws IOException {
    var _ = ask(Ask.read(0, 1)).mustSucceed();
    var _ = ask(Ask.flush()).mustSucceed();
  }

  /** Says goodbye, which the server must answer with the end of the connection only. */
  void leave() throws IOException {
    Check.that(!checker.waiting(), "the case leaves without its replies");
    var _ = send(Ask.of(Nbd.DISC, 0, 0));
    peer.mustEnd();
  }

  @Override
  public void close() throws IOException {
    peer.close();
  }
}
