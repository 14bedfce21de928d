package io.qnbd.server.net;

import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.Socket;
import java.net.SocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** A blocking client that writes the protocol by hand and shares no code with the server. */
final class RawClient implements AutoCloseable {
  static final int READ = 0;
  static final int WRITE = 1;
  static final int DISC = 2;
  static final int FLUSH = 3;
  static final int TRIM = 4;
  static final int CACHE = 5;
  static final int WRITE_ZEROES = 6;
  static final int BLOCK_STATUS = 7;
  static final int FUA = 1;
  static final int NO_HOLE = 2;
  static final int DF = 4;
  static final int FAST_ZERO = 16;
  static final int ACK = 1;

  final Socket socket = new Socket();
  final DataInputStream in;
  private final DataOutputStream out;

  record OptionReply(int option, int type, ByteBuffer data) {}

  record SimpleReply(int error, long cookie) {}

  record Chunk(int flags, int type, long cookie, ByteBuffer data) {}

  RawClient(SocketAddress server) throws IOException {
    this(server, 0);
  }

  RawClient(SocketAddress server, int receiveBufferBytes) throws IOException {
    if (receiveBufferBytes > 0) {
      socket.setReceiveBufferSize(receiveBufferBytes);
    }
    socket.setTcpNoDelay(true);
    socket.setSoTimeout(20_000);
    socket.connect(server);
    in = new DataInputStream(new java.io.BufferedInputStream(socket.getInputStream(), 4096));
    out = new DataOutputStream(socket.getOutputStream());
  }

  /** Greeting and client flags. */
  RawClient greet(int clientFlags) throws IOException {
    long magic = in.readLong();
    long newstyle = in.readLong();
    int flags = in.readUnsignedShort();
    if (magic != 0x4e42444d41474943L || newstyle != 0x49484156454f5054L || flags != 3) {
      throw new IOException("greeting is %x %x %x".formatted(magic, newstyle, flags));
    }
    out.writeInt(clientFlags);
    return this;
  }

  /** A whole handshake that ends in GO. */
  RawClient go(String name, boolean structured) throws IOException {
    greet(3);
    if (structured) {
      option(8, new byte[0]);
      expectAck(8);
    }
    option(7, infoData(name));
    while (true) {
      OptionReply reply = optionReply();
      if (reply.type() == ACK) {
        return this;
      }
      if (reply.type() < 0) {
        throw new IOException("GO was answered " + Integer.toHexString(reply.type()));
      }
    }
  }

  static byte[] infoData(String name, int... wanted) {
    byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer data = ByteBuffer.allocate(6 + bytes.length + 2 * wanted.length);
    data.putInt(bytes.length).put(bytes).putShort((short) wanted.length);
    for (int kind : wanted) {
      data.putShort((short) kind);
    }
    return data.array();
  }

  void option(int option, byte[] data) throws IOException {
    ByteBuffer whole = ByteBuffer.allocate(16 + data.length);
    whole.putLong(0x49484156454f5054L).putInt(option).putInt(data.length).put(data);
    out.write(whole.array());
  }

  OptionReply optionReply() throws IOException {
    long magic = in.readLong();
    if (magic != 0x3e889045565a9L) {
      throw new IOException("option reply magic is %x".formatted(magic));
    }
    int option = in.readInt();
    int type = in.readInt();
    byte[] data = new byte[in.readInt()];
    in.readFully(data);
    return new OptionReply(option, type, ByteBuffer.wrap(data));
  }

  void expectAck(int option) throws IOException {
    OptionReply reply = optionReply();
    if (reply.option() != option || reply.type() != ACK) {
      throw new IOException("expected ACK, got " + reply);
    }
  }

  static byte[] request(int flags, int command, long cookie, long offset, int bytes) {
    return ByteBuffer.allocate(28)
        .putInt(0x25609513)
        .putShort((short) flags)
        .putShort((short) command)
        .putLong(cookie)
        .putLong(offset)
        .putInt(bytes)
        .array();
  }

  static byte[] write(int flags, long cookie, long offset, byte[] data) {
    return join(request(flags, WRITE, cookie, offset, data.length), data);
  }

  static byte[] join(byte[]... parts) {
    ByteArrayOutputStream joined = new ByteArrayOutputStream();
    for (byte[] part : parts) {
      joined.writeBytes(part);
    }
    return joined.toByteArray();
  }

  void send(byte[]... parts) throws IOException {
    out.write(join(parts));
  }

  SimpleReply simpleReply() throws IOException {
    int magic = in.readInt();
    if (magic != 0x67446698) {
      throw new IOException("simple reply magic is %x".formatted(magic));
    }
    return new SimpleReply(in.readInt(), in.readLong());
  }

  List<SimpleReply> simpleReplies(int count) throws IOException {
    List<SimpleReply> replies = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      replies.add(simpleReply());
    }
    return replies;
  }

  Chunk chunk() throws IOException {
    int magic = in.readInt();
    if (magic != 0x668e33ef) {
      throw new IOException("chunk magic is %x".formatted(magic));
    }
    int flags = in.readUnsignedShort();
    int type = in.readUnsignedShort();
    long cookie = in.readLong();
    byte[] data = new byte[in.readInt()];
    in.readFully(data);
    return new Chunk(flags, type, cookie, ByteBuffer.wrap(data));
  }

  byte[] data(int bytes) throws IOException {
    byte[] data = new byte[bytes];
    in.readFully(data);
    return data;
  }

  /** One request without data, and the error of its simple reply. */
  int errorOf(int flags, int command, long offset, int bytes) throws IOException {
    send(request(flags, command, 77, offset, bytes));
    SimpleReply reply = simpleReply();
    if (reply.cookie() != 77) {
      throw new IOException("cookie is " + reply.cookie());
    }
    return reply.error();
  }

  int errorOfWrite(int flags, long offset, byte[] data) throws IOException {
    send(write(flags, 78, offset, data));
    return simpleReply().error();
  }

  /** Whether the server closes without sending another byte. */
  boolean closedByServer() throws IOException {
    try {
      return in.read() < 0;
    } catch (java.net.SocketException _) {
      return true;
    }
  }

  /** Closes by a reset instead of in order. */
  void reset() throws IOException {
    socket.setSoLinger(true, 0);
    socket.close();
  }

  @Override
  public void close() throws IOException {
    socket.close();
  }
}
