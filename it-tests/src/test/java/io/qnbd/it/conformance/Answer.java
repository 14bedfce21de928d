package io.qnbd.it.conformance;

import io.qnbd.it.conformance.OptionReply.Context;
import io.qnbd.it.conformance.OptionReply.Entry;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/** All that a server said to one option; the last reply is an ACK or an error. */
record Answer(int option, List<OptionReply> replies) {

  Answer {
    replies = List.copyOf(replies);
    int end = replies.getLast().type();
    Map<Integer, ByteBuffer> infos = infosOf(replies);
    boolean about = option == Nbd.OPT_INFO || option == Nbd.OPT_GO;
    Check.that(
        !about || end != Nbd.REP_ACK || infos.containsKey(Nbd.INFO_EXPORT),
        "%s was acknowledged without INFO_EXPORT",
        Nbd.option(option));
    Check.that(
        end != Nbd.ERR_UNKNOWN || infos.isEmpty(), "information about an export that is unknown");
    checkContexts(option, contextsOf(replies));
  }

  private static void checkContexts(int option, List<Context> contexts) {
    Set<Integer> ids = new HashSet<>();
    Set<String> names = new HashSet<>();
    for (Context context : contexts) {
      Check.that(names.add(context.name()), "the context %s comes twice", context.name());
      Check.that(
          ids.add(context.id()) || option == Nbd.OPT_LIST_META_CONTEXT,
          "two contexts have the id %d",
          context.id());
    }
  }

  private static Map<Integer, ByteBuffer> infosOf(List<OptionReply> replies) {
    Map<Integer, ByteBuffer> infos = new TreeMap<>();
    for (OptionReply reply : replies) {
      if (reply.type() == Nbd.REP_INFO) {
        ByteBuffer data = reply.buffer();
        int kind = data.getShort() & 0xffff;
        Check.that(infos.put(kind, data.slice()) == null, "information %d comes twice", kind);
      }
    }
    return infos;
  }

  private static List<Context> contextsOf(List<OptionReply> replies) {
    return replies.stream()
        .filter(reply -> reply.type() == Nbd.REP_META_CONTEXT)
        .map(reply -> Context.of(reply.buffer()))
        .toList();
  }

  /** The type of the last reply. */
  int end() {
    return replies.getLast().type();
  }

  boolean acknowledged() {
    return end() == Nbd.REP_ACK;
  }

  Answer mustAcknowledge() {
    return mustEndWith(Nbd.REP_ACK);
  }

  /** Fails unless the last reply is of one of these types. */
  Answer mustEndWith(int... types) {
    Check.that(Arrays.stream(types).anyMatch(type -> type == end()), "%s", this);
    return this;
  }

  /** Fails unless the last reply is an error. */
  Answer mustFail() {
    Check.that(replies.getLast().failed(), "%s", this);
    return this;
  }

  /** The information by type, each without its type. */
  Map<Integer, ByteBuffer> infos() {
    return infosOf(replies);
  }

  /** The contexts that were listed or selected. */
  List<Context> contexts() {
    return contextsOf(replies);
  }

  /** The names of the contexts, in order of name. */
  List<String> contextNames() {
    return contexts().stream().map(Context::name).sorted().toList();
  }

  /** The exports that were listed. */
  List<Entry> exports() {
    return replies.stream()
        .filter(reply -> reply.type() == Nbd.REP_SERVER)
        .map(reply -> Entry.of(reply.buffer()))
        .toList();
  }

  @Override
  public String toString() {
    OptionReply last = replies.getLast();
    String end = last.failed() ? "0x%x (%s)".formatted(last.type(), last.text()) : "ACK";
    return "%s was answered with %d replies, the last is %s"
        .formatted(Nbd.option(option), replies.size(), end);
  }
}
