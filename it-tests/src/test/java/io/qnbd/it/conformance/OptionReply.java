package io.qnbd.it.conformance;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * One message of the server in the handshake, checked against the rules for its type ("Option reply
 * types").
 */
record OptionReply(int option, int type, ByteBuffer data) {
  /** The longest that is legal: a name and a description, each a string. */
  private static final int DATA_BYTES_MAX = 4 + 2 * Nbd.STRING_BYTES_MAX;

  /** Reads the next one, which must belong to {@code option}. */
  static OptionReply read(Peer peer, int option) throws IOException {
    ByteBuffer header = peer.take(20);
    long magic = header.getLong();
    Check.that(magic == Nbd.OPTION_REPLY_MAGIC, "the option reply's magic is 0x%x", magic);
    int echoed = header.getInt();
    Check.that(echoed == option, "a reply to option 0x%x, expected one to 0x%x", echoed, option);
    int type = header.getInt();
    int length = header.getInt();
    Check.that(
        length >= 0 && length <= DATA_BYTES_MAX, "an option reply of 0x%x bytes of data", length);
    OptionReply reply = new OptionReply(option, type, peer.take(length));
    reply.check();
    return reply;
  }

  boolean last() {
    return type == Nbd.REP_ACK || failed();
  }

  boolean failed() {
    return type < 0;
  }

  /** The data from its start. */
  ByteBuffer buffer() {
    return data.duplicate();
  }

  /** What an error says to a person. */
  String text() {
    return Bytes.checkedText(buffer(), "the message of an option's error");
  }

  private void check() {
    switch (type) {
      case Nbd.REP_ACK -> Check.that(data.limit() == 0, "an ACK with %d bytes", data.limit());
      case Nbd.REP_SERVER -> {
        Check.that(option == Nbd.OPT_LIST, "REP_SERVER to %s", Nbd.option(option));
        var _ = Entry.of(buffer());
      }
      case Nbd.REP_INFO -> {
        boolean fits = option == Nbd.OPT_INFO || option == Nbd.OPT_GO;
        Check.that(fits, "REP_INFO to %s", Nbd.option(option));
        checkInfo(buffer());
      }
      case Nbd.REP_META_CONTEXT -> {
        boolean list = option == Nbd.OPT_LIST_META_CONTEXT;
        boolean fits = list || option == Nbd.OPT_SET_META_CONTEXT;
        Check.that(fits, "REP_META_CONTEXT to %s", Nbd.option(option));
        Context context = Context.of(buffer());
        Check.that(!list || context.id == 0, "a listed context has the id %d", context.id);
      }
      default -> {
        Check.that(
            type >= Nbd.ERR_UNSUP && type <= Nbd.ERR_EXT_HEADER_REQD,
            "the option reply type 0x%x",
            type);
        var _ = text();
      }
    }
  }

  private static void checkInfo(ByteBuffer info) {
    Check.that(info.remaining() >= 2, "a REP_INFO of %d bytes", info.remaining());
    int kind = info.getShort() & 0xffff;
    switch (kind) {
      case Nbd.INFO_EXPORT -> {
        Check.that(info.remaining() == 10, "an INFO_EXPORT of %d bytes", info.limit());
        var _ = info.getLong();
        Check.that((info.getShort() & Nbd.HAS_FLAGS) != 0, "transmission flags without bit 0");
      }
      case Nbd.INFO_NAME, Nbd.INFO_DESCRIPTION -> {
        var _ = Bytes.checkedText(info, "the text of information " + kind);
      }
      case Nbd.INFO_BLOCK_SIZE ->
          Check.that(info.remaining() == 12, "an INFO_BLOCK_SIZE of %d bytes", info.limit());
      default -> throw new AssertionError("information of the unknown type " + kind);
    }
  }

  /** One export of a list. */
  record Entry(String name, String description) {
    static Entry of(ByteBuffer data) {
      Check.that(data.remaining() >= 4, "a REP_SERVER of %d bytes", data.remaining());
      int length = data.getInt();
      Check.that(
          length >= 0 && length <= data.remaining(), "a name of 0x%x bytes in REP_SERVER", length);
      String name = Bytes.checkedText(data.slice(4, length), "an export's name");
      data.position(4 + length);
      return new Entry(name, Bytes.checkedText(data, "an export's description"));
    }
  }

  /** One metadata context. */
  record Context(int id, String name) {
    static Context of(ByteBuffer data) {
      Check.that(data.remaining() > 4, "a REP_META_CONTEXT of %d bytes", data.remaining());
      int id = data.getInt();
      String name = Bytes.checkedText(data, "a context's name");
      Check.that(name.indexOf(':') > 0, "a context without a namespace: %s", name);
      return new Context(id, name);
    }
  }
}
