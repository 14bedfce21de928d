package io.qnbd.server.remote;

import java.io.Closeable;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardSocketOptions;
import java.net.UnknownHostException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * One connection in its transmission phase. Any number of threads have requests in flight; a thread
 * of the connection's own receives the answers, straight into the buffers of those who wait.
 *
 * <p>The first thing that goes wrong ends the connection, and with it every request in flight.
 */
final class RemoteConnection implements Closeable {
  static final int CMD_READ = 0;
  static final int CMD_WRITE = 1;
  static final int CMD_DISCONNECT = 2;
  static final int CMD_FLUSH = 3;
  static final int CMD_WRITE_ZEROES = 6;
  static final int CMD_BLOCK_STATUS = 7;

  private static final int REQUEST_MAGIC = 0x25609513;
  private static final int SIMPLE_MAGIC = 0x67446698;
  private static final int CHUNK_MAGIC = 0x668e33ef;
  private static final int REQUEST_BYTES = 28;
  private static final int FLAG_DONE = 1;
  private static final int CHUNK_NONE = 0;
  private static final int CHUNK_DATA = 1;
  private static final int CHUNK_HOLE = 2;
  private static final int CHUNK_STATUS = 5;
  private static final int CHUNK_ERROR = 0x8001;
  private static final int CHUNK_ERROR_OFFSET = 0x8002;

  /** 131072 extents: more than servers send at once. */
  private static final int STATUS_BYTES_MAX = 1 << 20;

  private static final int ERROR_BYTES_MAX = 8 << 10;

  /** A server that takes longer to greet than any person waits. */
  private static final long GREETING_SECONDS_MAX = 30;

  private final SocketChannel channel;
  private final Wire wire;
  private final String name;
  private final RemoteExport export;
  private final Map<Long, Pending> inFlight = new ConcurrentHashMap<>();
  private final AtomicLong cookies = new AtomicLong();
  private final ReentrantLock sending = new ReentrantLock();
  private final AtomicBoolean closed = new AtomicBoolean();
  private final Thread receiver;
  private volatile @Nullable IOException broken;

  private RemoteConnection(SocketChannel channel, Wire wire, String name, RemoteExport export) {
    this.channel = channel;
    this.wire = wire;
    this.name = name;
    this.export = export;
    this.receiver =
        Thread.ofPlatform().daemon().name("nbd " + name).unstarted(this::receiveUntilTheEnd);
  }

  static RemoteConnection open(RemoteUri uri) throws IOException {
    SocketChannel channel = null;
    AtomicBoolean late = new AtomicBoolean();
    CompletableFuture<Boolean> greeted = new CompletableFuture<>();
    try {
      channel = connect(uri.address());
      closeUnlessInTime(channel, greeted, late);
      Wire wire = new Wire(channel);
      RemoteExport export = new Greeting(wire, uri.export()).run();
      greeted.complete(true);
      RemoteConnection connection = new RemoteConnection(channel, wire, uri.text(), export);
      connection.receiver.start();
      return connection;
    } catch (IOException e) {
      greeted.complete(true);
      if (channel != null) {
        channel.close();
      }
      String why =
          late.get()
              ? "did not greet within %d s".formatted(GREETING_SECONDS_MAX)
              : String.valueOf(e.getMessage());
      throw new IOException(uri.text() + ": " + why, e);
    }
  }

  private static SocketChannel connect(SocketAddress address) throws IOException {
    if (!(address instanceof InetSocketAddress named)) {
      return SocketChannel.open(address);
    }
    try {
      IOException last = new IOException("has no address");
      for (InetAddress each : InetAddress.getAllByName(named.getHostString())) {
        SocketChannel channel = SocketChannel.open();
        try {
          channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
          channel
              .socket()
              .connect(
                  new InetSocketAddress(each, named.getPort()),
                  (int) TimeUnit.SECONDS.toMillis(GREETING_SECONDS_MAX));
          return channel;
        } catch (IOException e) {
          channel.close();
          last = e;
        }
      }
      throw last;
    } catch (UnknownHostException e) {
      throw new IOException("there is no host " + named.getHostString(), e);
    }
  }

  private static void closeUnlessInTime(
      SocketChannel channel, CompletableFuture<Boolean> greeted, AtomicBoolean late) {
    Thread.ofVirtual()
        .start(() -> {
          try {
            greeted.copy().orTimeout(GREETING_SECONDS_MAX, TimeUnit.SECONDS).join();
          } catch (RuntimeException _) {
            late.set(true);
            try {
              channel.close();
            } catch (IOException _) {
              // it is closed all the same
            }
          }
        });
  }

  RemoteExport export() {
    return export;
  }

  /** Sends a request, and waits for its answer. */
  void request(int command, int flags, Pending pending, @Nullable ByteBuffer payload)
      throws IOException {
    long cookie = cookies.incrementAndGet();
    inFlight.put(cookie, pending);
    ByteBuffer header =
        ByteBuffer.allocateDirect(REQUEST_BYTES)
            .putInt(REQUEST_MAGIC)
            .putShort((short) flags)
            .putShort((short) command)
            .putLong(cookie)
            .putLong(pending.offset)
            .putInt(pending.bytes)
            .flip();
    sending.lock();
    try {
      IOException earlier = broken;
      if (earlier != null) {
        inFlight.remove(cookie); // whoever failed the others may have been here before it came
        throw new IOException(earlier.getMessage(), earlier);
      }
      send(header, payload);
    } finally {
      sending.unlock();
    }
    pending.await();
  }

  private void send(ByteBuffer header, @Nullable ByteBuffer payload) {
    try {
      if (payload == null) {
        wire.write(header);
      } else {
        wire.write(header, payload);
      }
    } catch (IOException e) {
      end(e);
    }
  }

  private void receiveUntilTheEnd() {
    try {
      while (true) {
        receive();
      }
    } catch (IOException e) {
      end(e);
    } catch (RuntimeException | Error e) {
      end(new IOException("receiving failed: " + e, e));
    }
  }

  /** Fails whoever waits, now or later; the receiver's buffers are theirs again. */
  private void end(IOException cause) {
    if (broken == null) {
      broken = closed.get() ? new IOException("is closed") : cause;
    }
    try {
      channel.close();
    } catch (IOException _) {
      // what failed first counts
    }
    if (!Thread.currentThread().equals(receiver)) {
      return; // it ends too, and is the last that touches the requests
    }
    IOException first = broken;
    sending.lock();
    try {
      for (Pending each : inFlight.values()) {
        each.fail(first == null ? cause : first);
        each.complete();
      }
      inFlight.clear();
    } finally {
      sending.unlock();
    }
  }

  private void receive() throws IOException {
    int magic = wire.readInt();
    if (magic == SIMPLE_MAGIC) {
      receiveSimple();
    } else if (magic == CHUNK_MAGIC && export.structured()) {
      receiveChunk();
    } else {
      throw new IOException("sent an answer that begins with 0x%08x".formatted(magic));
    }
  }

  private void receiveSimple() throws IOException {
    int error = wire.readInt();
    long cookie = wire.readLong();
    Pending pending = find(cookie);
    if (error != 0) {
      pending.fail(new IOException(errorText(error, "")));
    } else if (pending.target != null) {
      wire.read(pending.place(pending.offset, pending.bytes));
    }
    inFlight.remove(cookie);
    pending.complete();
  }

  private void receiveChunk() throws IOException {
    int flags = wire.readShort();
    int type = wire.readShort();
    long cookie = wire.readLong();
    long length = Integer.toUnsignedLong(wire.readInt());
    Pending pending = find(cookie);
    switch (type) {
      case CHUNK_NONE -> wire.skip(limited(length, 0));
      case CHUNK_DATA -> {
        requireAtLeast(length, Long.BYTES);
        long at = wire.readLong();
        wire.read(pending.place(at, length - Long.BYTES));
      }
      case CHUNK_HOLE -> {
        requireAtLeast(limited(length, Long.BYTES + Integer.BYTES), Long.BYTES + Integer.BYTES);
        long at = wire.readLong();
        zero(pending.place(at, Integer.toUnsignedLong(wire.readInt())));
      }
      case CHUNK_STATUS -> receiveStatus(pending, length);
      case CHUNK_ERROR, CHUNK_ERROR_OFFSET -> receiveError(pending, length);
      default -> {
        if ((type & 0x8000) == 0) {
          throw new IOException("sent a chunk of the unknown kind " + type);
        }
        receiveError(pending, length);
      }
    }
    if ((flags & FLAG_DONE) != 0) {
      inFlight.remove(cookie);
      pending.complete();
    }
  }

  private static void zero(ByteBuffer range) {
    while (range.remaining() >= Long.BYTES) {
      range.putLong(0);
    }
    while (range.hasRemaining()) {
      range.put((byte) 0);
    }
  }

  private void receiveStatus(Pending pending, long length) throws IOException {
    Pending.StatusSink status = pending.status;
    if (status == null || length % Long.BYTES != Integer.BYTES) {
      throw new IOException("sent a block status that nobody asked for");
    }
    limited(length, STATUS_BYTES_MAX);
    long context = Integer.toUnsignedLong(wire.readInt());
    for (long left = length - Integer.BYTES; left > 0; left -= Long.BYTES) {
      long bytes = Integer.toUnsignedLong(wire.readInt());
      int state = wire.readInt();
      if (context == export.context()) {
        status.extent(bytes, state);
      }
    }
  }

  private void receiveError(Pending pending, long length) throws IOException {
    requireAtLeast(limited(length, ERROR_BYTES_MAX), Integer.BYTES + Short.BYTES);
    int error = wire.readInt();
    int textBytes = wire.readShort();
    long rest = length - Integer.BYTES - Short.BYTES - textBytes;
    requireAtLeast(rest, 0);
    String text = new String(wire.readBytes(textBytes), StandardCharsets.UTF_8);
    wire.skip(rest);
    pending.fail(new IOException(errorText(error, text)));
  }

  private static String errorText(int error, String text) {
    String name =
        switch (error) {
          case 1 -> "operation not permitted";
          case 5 -> "input/output error";
          case 12 -> "out of memory";
          case 22 -> "invalid argument";
          case 28 -> "no space left on device";
          case 75 -> "value too large";
          case 95 -> "not supported";
          case 108 -> "the server is shutting down";
          default -> "error " + error;
        };
    return text.isEmpty() ? name : name + " (" + text + ")";
  }

  private static long limited(long length, long max) throws IOException {
    if (length > max) {
      throw new IOException("sent a chunk of %d bytes, expected at most %d".formatted(length, max));
    }
    return length;
  }

  private static void requireAtLeast(long length, long min) throws IOException {
    if (length < min) {
      throw new IOException("sent a chunk of %d bytes that is too short".formatted(length));
    }
  }

  private Pending find(long cookie) throws IOException {
    Pending pending = inFlight.get(cookie);
    if (pending == null) {
      throw new IOException("answered a request that was not made");
    }
    return pending;
  }

  @Override
  public void close() throws IOException {
    if (!closed.compareAndSet(false, true)) {
      return;
    }
    if (broken == null) {
      sending.lock();
      try {
        wire.write(
            ByteBuffer.allocate(REQUEST_BYTES)
                .putInt(REQUEST_MAGIC)
                .putShort((short) 0)
                .putShort((short) CMD_DISCONNECT)
                .putLong(0)
                .putLong(0)
                .putInt(0)
                .flip());
      } catch (IOException _) {
        // it has gone: nothing is in flight any more
      } finally {
        sending.unlock();
      }
    }
    channel.close();
  }

  @Override
  public String toString() {
    return name;
  }
}
