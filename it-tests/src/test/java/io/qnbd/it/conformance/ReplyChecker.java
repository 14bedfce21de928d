package io.qnbd.it.conformance;

import io.qnbd.it.conformance.Reply.Content;
import io.qnbd.it.conformance.Reply.Extent;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Reads a server's replies and holds each to every rule that the protocol has for it ("Simple reply
 * message" to "Error values"): which kinds of message the mode allows, cookies that somebody waits
 * for, DONE exactly once, chunks inside the request and without overlap, errors that the request
 * can have, extents that add up. Whatever order and splitting the rules leave open passes.
 *
 * <p>Requests in flight at the same time may have equal cookies if they are equal otherwise.
 */
final class ReplyChecker {
  /** What a server may answer; ENOMEM is one it should not. */
  private static final Set<Integer> ERRORS =
      Set.of(Nbd.EPERM, Nbd.EIO, Nbd.EINVAL, Nbd.ENOSPC, Nbd.EOVERFLOW, Nbd.ENOTSUP, Nbd.ESHUTDOWN);

  private static final Set<Integer> WITH_ERROR_OFFSET =
      Set.of(Nbd.READ, Nbd.WRITE, Nbd.TRIM, Nbd.CACHE, Nbd.WRITE_ZEROES, Nbd.BLOCK_STATUS);

  private static final int EXTENTS_MAX = 1 << 20;

  private final Mode mode;
  private final long exportBytes;

  /** What the server said that it takes at most, or what it should. */
  private final long payloadMax;

  private final Map<Integer, String> contexts;
  private final Map<Long, Deque<Reply>> pending = new HashMap<>();

  ReplyChecker(Mode mode, long exportBytes, long payloadMax, Map<Integer, String> contexts) {
    this.mode = mode;
    this.exportBytes = exportBytes;
    this.payloadMax = payloadMax;
    this.contexts = Map.copyOf(contexts);
  }

  /** Expects a reply to a request that is about to be sent. */
  void expect(Ask ask, long cookie) {
    pending.computeIfAbsent(cookie, _ -> new ArrayDeque<>()).add(new Reply(ask));
  }

  boolean waiting() {
    return !pending.isEmpty();
  }

  /** Reads one message; returns the reply that it completes, or null when more is to come. */
  @Nullable Reply next(Peer peer) throws IOException {
    int magic = peer.take(4).getInt();
    int wanted = mode == Mode.EXTENDED ? Nbd.EXTENDED_CHUNK_MAGIC : Nbd.CHUNK_MAGIC;
    if (magic == Nbd.SIMPLE_REPLY_MAGIC) {
      return simple(peer);
    }
    Check.that(mode.chunked() && magic == wanted, "the magic 0x%x in a %s reply", magic, mode);
    return chunk(peer);
  }

  private Reply simple(Peer peer) throws IOException {
    ByteBuffer rest = peer.take(12);
    int error = rest.getInt();
    long cookie = rest.getLong();
    Reply reply = first(cookie);
    Ask ask = reply.ask;
    reply.messages++;
    Check.that(mode != Mode.EXTENDED, "a simple reply to %s under extended headers", ask);
    boolean payload = ask.type() == Nbd.READ || (ask.type() == Nbd.BLOCK_STATUS && error == 0);
    Check.that(mode == Mode.SIMPLE || ask.type() != Nbd.READ, "a simple reply to %s", ask);
    Check.that(mode == Mode.SIMPLE || !payload, "a simple reply to %s", ask);
    if (error != 0) {
      checkError(ask, error);
      reply.error = error;
    } else if (ask.type() == Nbd.READ && ask.length() > 0) {
      ByteBuffer data = peer.take(Math.toIntExact(ask.length()));
      reply.content.add(new Content(ask.offset(), ask.length(), data));
    }
    return finish(reply, cookie);
  }

  private @Nullable Reply chunk(Peer peer) throws IOException {
    boolean extended = mode == Mode.EXTENDED;
    ByteBuffer header = peer.take(extended ? 28 : 16);
    int flags = header.getShort() & 0xffff;
    int type = header.getShort() & 0xffff;
    long cookie = header.getLong();
    Reply any = first(cookie);
    Ask ask = any.ask;
    if (extended) {
      long echoed = header.getLong();
      Check.that(echoed == ask.offset(), "a reply to %s with the offset 0x%x", ask, echoed);
    }
    long length = extended ? header.getLong() : header.getInt() & 0xffffffffL;
    long most = Math.max(payloadMax + 16, 8 + 16L * EXTENTS_MAX);
    Check.that(length >= 0 && length <= most, "a chunk of 0x%x bytes to %s", length, ask);
    Check.that((flags & ~Nbd.CHUNK_DONE) == 0, "chunk flags 0x%x to %s", flags, ask);
    ByteBuffer payload = peer.take((int) length);
    Reply reply = receiver(cookie, type, payload);
    reply.messages++;
    switch (type) {
      case Nbd.CHUNK_NONE -> {
        Check.that(length == 0, "a NONE chunk of %d bytes", length);
        Check.that(flags == Nbd.CHUNK_DONE, "a NONE chunk that is not the last one");
      }
      case Nbd.CHUNK_DATA, Nbd.CHUNK_HOLE -> content(reply, type, payload);
      case Nbd.CHUNK_STATUS, Nbd.CHUNK_STATUS_EXT -> status(reply, type, payload);
      case Nbd.CHUNK_ERROR, Nbd.CHUNK_ERROR_OFFSET -> error(reply, type, payload);
      default -> throw new AssertionError("the chunk type 0x%x to %s".formatted(type, ask));
    }
    return (flags & Nbd.CHUNK_DONE) != 0 ? finish(reply, cookie) : null;
  }

  private Reply first(long cookie) {
    Deque<Reply> waiting = pending.get(cookie);
    if (waiting == null) {
      throw new AssertionError("a reply with cookie 0x%x, none waits".formatted(cookie));
    }
    return waiting.getFirst();
  }

  /** Among equal requests with one cookie, content belongs to the first that it is new to. */
  private Reply receiver(long cookie, int type, ByteBuffer payload) {
    if (type == Nbd.CHUNK_DATA && payload.remaining() > 8) {
      long offset = payload.getLong(0);
      for (Reply reply : pending.getOrDefault(cookie, new ArrayDeque<>())) {
        if (reply.content.stream().noneMatch(part -> part.meets(offset, payload.limit() - 8))) {
          return reply;
        }
      }
    }
    return first(cookie);
  }

  private Reply finish(Reply reply, long cookie) {
    Ask ask = reply.ask;
    if (reply.error == 0 && ask.type() == Nbd.READ) {
      long covered = reply.coveredBytes();
      Check.that(covered == ask.length(), "%s succeeded with %d bytes", ask, covered);
    }
    if (reply.error == 0 && ask.type() == Nbd.BLOCK_STATUS) {
      @Nullable List<Integer> some = ask.contexts();
      Collection<Integer> expected = some == null ? contexts.keySet() : some;
      Check.that(
          reply.status.keySet().equals(Set.copyOf(expected)),
          "%s told of the contexts %s, expected %s",
          ask,
          reply.status.keySet(),
          expected);
    }
    reply.done = true;
    Deque<Reply> waiting = pending.getOrDefault(cookie, new ArrayDeque<>());
    waiting.remove(reply);
    if (waiting.isEmpty()) {
      pending.remove(cookie);
    }
    return reply;
  }

  private void content(Reply reply, int type, ByteBuffer payload) {
    Ask ask = reply.ask;
    Check.that(ask.type() == Nbd.READ, "content in reply to %s", ask);
    int length = payload.remaining();
    boolean data = type == Nbd.CHUNK_DATA;
    Check.that(data ? length > 8 : length == 12, "a content chunk of %d bytes to %s", length, ask);
    long offset = payload.getLong();
    long bytes = data ? payload.remaining() : payload.getInt() & 0xffffffffL;
    long into = offset - ask.offset();
    Check.that(
        bytes > 0 && into >= 0 && into <= ask.length() && bytes <= ask.length() - into,
        "%d bytes at 0x%x in reply to %s",
        bytes,
        offset,
        ask);
    Check.that(
        !data || bytes <= payloadMax, "%d bytes in a chunk, at most %d fit", bytes, payloadMax);
    for (Content other : reply.content) {
      Check.that(!other.meets(offset, bytes), "content twice at 0x%x, to %s", offset, ask);
    }
    for (long error : reply.errorOffsets) {
      Check.that(error < offset || error >= offset + bytes, "content behind its error, %s", ask);
    }
    reply.content.add(new Content(offset, bytes, data ? payload.slice() : null));
    Check.that(!ask.has(Nbd.DF) || reply.content.size() == 1, "fragments in reply to %s", ask);
    Check.that(reply.error != Nbd.EOVERFLOW || !ask.has(Nbd.DF), "content with EOVERFLOW");
  }

  private void status(Reply reply, int type, ByteBuffer payload) {
    Ask ask = reply.ask;
    boolean wide = type == Nbd.CHUNK_STATUS_EXT;
    Check.that(ask.type() == Nbd.BLOCK_STATUS, "a block status in reply to %s", ask);
    Check.that(wide == (mode == Mode.EXTENDED), "the status chunk type %d when %s", type, mode);
    int fixed = wide ? 8 : 4;
    int each = wide ? 16 : 8;
    int length = payload.remaining();
    Check.that(
        length > fixed && (length - fixed) % each == 0, "a status chunk of %d bytes", length);
    int count = (length - fixed) / each;
    int id = payload.getInt();
    String name = contexts.getOrDefault(id, "");
    Check.that(!name.isEmpty(), "a status of the context %d, which was not selected", id);
    if (wide) {
      int told = payload.getInt();
      Check.that(told == count, "a status chunk says %d extents and holds %d", told, count);
    }
    Check.that(count <= EXTENTS_MAX, "%d extents in a chunk", count);
    List<Extent> extents = new ArrayList<>(count);
    for (int index = 0; index < count; index++) {
      extents.add(
          wide
              ? new Extent(payload.getLong(), payload.getLong())
              : new Extent(payload.getInt() & 0xffffffffL, payload.getInt() & 0xffffffffL));
    }
    checkExtents(ask, name, extents);
    Check.that(reply.status.put(id, extents) == null, "the context %s twice, to %s", name, ask);
  }

  private void checkExtents(Ask ask, String context, List<Extent> extents) {
    boolean even = ask.offset() % 512 == 0 && exportBytes % 512 == 0;
    long covered = 0;
    for (int index = 0; index < extents.size(); index++) {
      Extent extent = extents.get(index);
      boolean last = index == extents.size() - 1;
      Check.that(extent.bytes() > 0, "an extent of %d bytes, to %s", extent.bytes(), ask);
      Check.that(
          extent.bytes() <= exportBytes - ask.offset() - covered,
          "extents beyond the export, %s",
          ask);
      covered += extent.bytes();
      Check.that(last || covered < ask.effectLength(), "extents behind the last one, %s", ask);
      Check.that(last || !even || extent.bytes() % 512 == 0, "an odd extent %s, %s", extent, ask);
      Check.that(extent.flags() >>> 32 == 0, "a state of more than 32 bits, %s", ask);
      boolean allocation = context.equals(Nbd.ALLOCATION);
      boolean dirty = context.startsWith(Nbd.DIRTY);
      long defined = allocation ? 3 : dirty ? 1 : 0xffffffffL;
      Check.that((extent.flags() & ~defined) == 0, "the state 0x%x of %s", extent.flags(), context);
    }
    if (ask.has(Nbd.REQ_ONE)) {
      Check.that(extents.size() == 1, "%d extents to %s", extents.size(), ask);
      Check.that(covered <= ask.effectLength(), "an extent of %d bytes to %s", covered, ask);
    }
  }

  private void error(Reply reply, int type, ByteBuffer payload) {
    Ask ask = reply.ask;
    boolean offset = type == Nbd.CHUNK_ERROR_OFFSET;
    int fixed = offset ? 14 : 6;
    int length = payload.remaining();
    Check.that(length >= fixed, "an error chunk of %d bytes", length);
    int error = payload.getInt();
    int textBytes = payload.getShort() & 0xffff;
    Check.that(length == fixed + textBytes, "%d bytes of error text in %d", textBytes, length);
    checkError(ask, error);
    String text = Bytes.checkedText(payload.slice(6, textBytes), "an error's message");
    if (offset) {
      long at = payload.getLong(6 + textBytes);
      boolean inside = at - ask.offset() >= 0 && at - ask.offset() < ask.effectLength();
      Check.that(inside, "an error at 0x%x, to %s", at, ask);
      Check.that(WITH_ERROR_OFFSET.contains(ask.type()), "an error with an offset, to %s", ask);
      Check.that(!reply.errorOffsets.contains(at), "the error offset 0x%x twice", at);
      reply.errorOffsets.add(at);
    } else {
      reply.errorsWithoutOffset++;
      Check.that(reply.errorsWithoutOffset == 1, "two errors without offset, to %s", ask);
    }
    Check.that(
        error != Nbd.EOVERFLOW || !ask.has(Nbd.DF) || reply.content.isEmpty(),
        "content with EOVERFLOW");
    if (reply.error == 0) {
      reply.error = error;
      reply.text = text;
    }
  }

  private void checkError(Ask ask, int error) {
    Check.that(ERRORS.contains(error), "the error %d to %s", error, ask);
    boolean unfragmented = ask.type() == Nbd.READ && ask.has(Nbd.DF) && mode.chunked();
    boolean tooLong =
        ask.type() != Nbd.WRITE && Long.compareUnsigned(ask.effectLength(), payloadMax) > 0;
    boolean fast = ask.type() == Nbd.WRITE_ZEROES && ask.has(Nbd.FAST_ZERO);
    Check.that(error != Nbd.EOVERFLOW || unfragmented || tooLong, "EOVERFLOW to %s", ask);
    Check.that(error != Nbd.EOVERFLOW || !fast, "EOVERFLOW to %s", ask);
    Check.that(error != Nbd.ENOTSUP || fast, "ENOTSUP to %s", ask);
  }
}
