package io.qnbd.it.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/**
 * The newstyle negotiation. It reads nothing beyond the last reply, because the server is silent
 * until the first request.
 */
final class Handshake {
  private static final long NBDMAGIC = 0x4e42444d41474943L;
  private static final long IHAVEOPT = 0x49484156454f5054L;
  private static final long REPLY_MAGIC = 0x3e889045565a9L;
  private static final int FIXED_NEWSTYLE = 1;
  private static final int NO_ZEROES = 2;
  private static final int OPT_EXPORT_NAME = 1;
  private static final int OPT_GO = 7;
  private static final int OPT_STRUCTURED_REPLY = 8;
  private static final int REP_ACK = 1;
  private static final int REP_INFO = 3;
  private static final int INFO_EXPORT = 0;

  private final SocketChannel channel;
  private final Wire wire;

  Handshake(SocketChannel channel) {
    this.channel = channel;
    this.wire = new Wire(channel);
  }

  /** What was agreed on. */
  record Export(long bytes, int flags, boolean structured) {}

  Export open(String name, NbdClient.Style style) throws IOException {
    if (wire.readLong() != NBDMAGIC || wire.readLong() != IHAVEOPT) {
      throw new IOException("not a newstyle NBD server");
    }
    int serverFlags = wire.readShort();
    int both = serverFlags & (FIXED_NEWSTYLE | NO_ZEROES);
    send(ByteBuffer.allocate(4).putInt(both).flip());
    return switch (style) {
      case GO_STRUCTURED -> {
        option(OPT_STRUCTURED_REPLY, ByteBuffer.allocate(0));
        int type = readReply(OPT_STRUCTURED_REPLY).type;
        if (type != REP_ACK) {
          throw new NbdException(type, "structured replies were refused");
        }
        yield go(name, true);
      }
      case GO_SIMPLE -> go(name, false);
      case EXPORT_NAME -> exportName(name, both);
    };
  }

  private Export exportName(String name, int flags) throws IOException {
    option(OPT_EXPORT_NAME, ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8)));
    long bytes = wire.readLong();
    int transmission = wire.readShort();
    if ((flags & NO_ZEROES) == 0) {
      var _ = wire.readBytes(124);
    }
    return new Export(bytes, transmission, false);
  }

  private Export go(String name, boolean structured) throws IOException {
    byte[] text = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(4 + text.length + 2);
    option(OPT_GO, data.putInt(text.length).put(text).putShort((short) 0).flip());
    long bytes = -1;
    int flags = 0;
    while (true) {
      Reply reply = readReply(OPT_GO);
      if (reply.type == REP_INFO) {
        ByteBuffer info = reply.data;
        if (info.getShort() == INFO_EXPORT) {
          bytes = info.getLong();
          flags = info.getShort() & 0xffff;
        }
      } else if (reply.type == REP_ACK && bytes >= 0) {
        return new Export(bytes, flags, structured);
      } else {
        throw new NbdException(
            reply.type,
            "GO was refused: %#x %s"
                .formatted(reply.type, StandardCharsets.UTF_8.decode(reply.data)));
      }
    }
  }

  private record Reply(int type, ByteBuffer data) {}

  private Reply readReply(int option) throws IOException {
    if (wire.readLong() != REPLY_MAGIC || wire.readInt() != option) {
      throw new IOException("a reply that fits no option");
    }
    int type = wire.readInt();
    return new Reply(type, ByteBuffer.wrap(wire.readBytes(wire.readInt())));
  }

  private void option(int option, ByteBuffer data) throws IOException {
    ByteBuffer message = ByteBuffer.allocate(16 + data.remaining());
    send(message.putLong(IHAVEOPT).putInt(option).putInt(data.remaining()).put(data).flip());
  }

  private void send(ByteBuffer message) throws IOException {
    while (message.hasRemaining()) {
      channel.write(message);
    }
  }
}
