package io.qnbd.server.remote;

import io.qnbd.protocol.InfoType;
import io.qnbd.protocol.OptionError;
import io.qnbd.protocol.OptionType;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * The handshake from the client's side (NBD protocol, "Fixed newstyle negotiation").
 *
 * <p>Owner: the thread that connects.
 */
final class Greeting {
  private static final long MAGIC = 0x4e42444d41474943L; // NBDMAGIC
  private static final long OPTION_MAGIC = 0x49484156454f5054L; // IHAVEOPT
  private static final long REPLY_MAGIC = 0x3e889045565a9L;
  private static final int FIXED_NEWSTYLE = 1;
  private static final int NO_ZEROES = 2;
  private static final int ACK = 1;
  private static final int INFO = 3;
  private static final int META_CONTEXT = 4;
  private static final int EXPORT_NAME_ZEROES = 124;

  /** Nothing that is asked for here is answered with more: names and texts end at 4096 bytes. */
  private static final int REPLY_BYTES_MAX = 16 << 10;

  /** A server that never ends its answers is not listened to for ever. */
  private static final int REPLIES_MAX = 64;

  /** By the protocol, what a server takes that does not say how much it takes. */
  private static final int PAYLOAD_BYTES_DEFAULT = 32 << 20;

  private static final int BLOCK_BYTES_MAX = 64 << 10;
  private static final String ALLOCATION = "base:allocation";

  private final Wire wire;
  private final byte[] export;
  private long bytes = -1;
  private int flags;
  private int blockBytesMin = 1;
  private int payloadBytesMax = PAYLOAD_BYTES_DEFAULT;
  private long context = -1;
  private boolean noZeroes;

  Greeting(Wire wire, String export) {
    this.wire = wire;
    this.export = export.getBytes(StandardCharsets.UTF_8);
  }

  RemoteExport run() throws IOException {
    if (wire.readLong() != MAGIC) {
      throw new IOException("is not an NBD server");
    }
    if (wire.readLong() != OPTION_MAGIC) {
      throw new IOException("speaks the oldest NBD handshake, which is not supported");
    }
    int server = wire.readShort();
    if ((server & FIXED_NEWSTYLE) == 0) {
      throw new IOException("does not speak the fixed newstyle handshake");
    }
    noZeroes = (server & NO_ZEROES) != 0;
    wire.write(ByteBuffer.allocate(Integer.BYTES).putInt(server & 3).flip());
    boolean structured = ask(OptionType.STRUCTURED_REPLY, ByteBuffer.allocate(0)) == ACK;
    if (structured) {
      askForContext();
    }
    go();
    check();
    return new RemoteExport(bytes, flags, blockBytesMin, payloadBytesMax, structured, context);
  }

  private void askForContext() throws IOException {
    byte[] query = ALLOCATION.getBytes(StandardCharsets.US_ASCII);
    ByteBuffer data =
        ByteBuffer.allocate(3 * Integer.BYTES + export.length + query.length)
            .putInt(export.length)
            .put(export)
            .putInt(1)
            .putInt(query.length)
            .put(query)
            .flip();
    if (ask(OptionType.SET_META_CONTEXT, data) != ACK) {
      context = -1;
    }
  }

  private void go() throws IOException {
    ByteBuffer data =
        ByteBuffer.allocate(Integer.BYTES + export.length + 2 * Short.BYTES)
            .putInt(export.length)
            .put(export)
            .putShort((short) 1)
            .putShort((short) InfoType.BLOCK_SIZE)
            .flip();
    int answer = ask(OptionType.GO, data);
    if (answer == OptionError.UNSUPPORTED.wireNumber()) {
      nameExport();
    } else if (answer != ACK) {
      throw new IOException(refusal(answer));
    }
  }

  private String refusal(int answer) {
    String name = new String(export, StandardCharsets.UTF_8);
    for (OptionError error : OptionError.values()) {
      if (error.wireNumber() == answer) {
        return switch (error) {
          case UNKNOWN_EXPORT ->
              export.length == 0 ? "has no default export" : "has no export named " + name;
          case TLS_REQUIRED -> "insists on TLS, which this client does not support";
          case POLICY -> "does not let this client in";
          case SHUTDOWN -> "is shutting down";
          default -> "refuses the export (%s)".formatted(error);
        };
      }
    }
    return "refuses the export (0x%08x)".formatted(answer);
  }

  /** The only way of servers that are older than GO; they end the connection to say no. */
  private void nameExport() throws IOException {
    send(OptionType.EXPORT_NAME, ByteBuffer.wrap(export));
    bytes = wire.readLong();
    flags = wire.readShort();
    if (!noZeroes) {
      wire.skip(EXPORT_NAME_ZEROES);
    }
  }

  private void send(int option, ByteBuffer data) throws IOException {
    ByteBuffer header =
        ByteBuffer.allocate(Long.BYTES + 2 * Integer.BYTES)
            .putLong(OPTION_MAGIC)
            .putInt(option)
            .putInt(data.remaining())
            .flip();
    wire.write(header, data);
  }

  /** Sends an option, takes in what is told of it, and returns its last answer. */
  private int ask(int option, ByteBuffer data) throws IOException {
    send(option, data);
    for (int replies = 0; replies < REPLIES_MAX; replies++) {
      if (wire.readLong() != REPLY_MAGIC || wire.readInt() != option) {
        throw new IOException("answered the handshake with something else than was asked for");
      }
      int type = wire.readInt();
      int length = wire.readInt();
      if (length < 0 || length > REPLY_BYTES_MAX) {
        throw new IOException(
            "sent an answer of %d bytes in the handshake, expected at most %d"
                .formatted(Integer.toUnsignedLong(length), REPLY_BYTES_MAX));
      }
      ByteBuffer body = ByteBuffer.wrap(wire.readBytes(length));
      switch (type) {
        case INFO -> takeInfo(body);
        case META_CONTEXT -> takeContext(body);
        default -> {
          return type;
        }
      }
    }
    throw new IOException("does not come to the end of its handshake");
  }

  private void takeInfo(ByteBuffer body) throws IOException {
    int type = body.remaining() < Short.BYTES ? -1 : body.getShort() & 0xffff;
    if (type == InfoType.EXPORT && body.remaining() == Long.BYTES + Short.BYTES) {
      bytes = body.getLong();
      flags = body.getShort() & 0xffff;
    } else if (type == InfoType.BLOCK_SIZE && body.remaining() == 3 * Integer.BYTES) {
      blockBytesMin = body.getInt();
      body.getInt(); // preferred
      long most = Integer.toUnsignedLong(body.getInt());
      payloadBytesMax = (int) Math.min(most, PAYLOAD_BYTES_DEFAULT);
    }
  }

  private void takeContext(ByteBuffer body) {
    byte[] name = new byte[Math.max(0, body.remaining() - Integer.BYTES)];
    if (body.remaining() >= Integer.BYTES) {
      long id = Integer.toUnsignedLong(body.getInt());
      body.get(name);
      if (new String(name, StandardCharsets.US_ASCII).equals(ALLOCATION)) {
        context = id;
      }
    }
  }

  private void check() throws IOException {
    if (bytes < 0) {
      throw new IOException("says that the export has 0x%x bytes".formatted(bytes));
    }
    if (Integer.bitCount(blockBytesMin) != 1
        || blockBytesMin < 1
        || blockBytesMin > BLOCK_BYTES_MAX
        || payloadBytesMax < blockBytesMin) {
      throw new IOException(
          "has blocks of %d to %d bytes, which makes no sense"
              .formatted(blockBytesMin, payloadBytesMax));
    }
  }
}
