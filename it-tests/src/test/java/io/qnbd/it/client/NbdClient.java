package io.qnbd.it.client;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardSocketOptions;
import java.net.URI;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A connection to one export (NBD protocol, fixed newstyle).
 *
 * <p>Each request returns at once, when its bytes are on their way; its future completes with the
 * reply, exceptionally with {@link NbdException} when the server answered an error and with another
 * {@link IOException} when the connection was lost or the server broke the protocol. Any number of
 * requests may be in flight. Thread-safe.
 */
public final class NbdClient implements AutoCloseable {
  public static final int FLAG_FUA = 1;
  public static final int FLAG_NO_HOLE = 1 << 1;
  public static final int FLAG_DF = 1 << 2;
  public static final int FLAG_FAST_ZERO = 1 << 4;

  private static final int WAIT_SECONDS = 60;
  private static final int CMD_READ = 0;
  private static final int CMD_WRITE = 1;
  private static final int CMD_DISC = 2;
  private static final int CMD_FLUSH = 3;
  private static final int CMD_TRIM = 4;
  private static final int CMD_CACHE = 5;
  private static final int CMD_WRITE_ZEROES = 6;

  private final SocketChannel channel;
  private final Handshake.Export export;
  private final Map<Long, Pending> pending = new ConcurrentHashMap<>();
  private final AtomicLong cookies = new AtomicLong(1);
  private final Object writeLock = new Object();
  private final Thread reader;
  private volatile boolean closing;

  private NbdClient(SocketChannel channel, Handshake.Export export) {
    this.channel = channel;
    this.export = export;
    this.reader =
        Thread.ofPlatform().daemon().name("nbd-client-reader").unstarted(this::readReplies);
  }

  /** How the connection is opened and answered. */
  public enum Style {
    GO_STRUCTURED,
    GO_SIMPLE,
    EXPORT_NAME
  }

  /** Connects to {@code nbd://host:port/name} or {@code nbd+unix:///name?socket=path}. */
  public static NbdClient connect(URI uri, Style style) throws IOException {
    String path = uri.getPath() == null ? "" : uri.getPath();
    String name = path.startsWith("/") ? path.substring(1) : path;
    SocketChannel channel = SocketChannel.open(address(uri));
    try {
      if (!"nbd+unix".equals(uri.getScheme())) {
        channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
      }
      NbdClient client = new NbdClient(channel, new Handshake(channel).open(name, style));
      client.reader.start();
      return client;
    } catch (Throwable e) {
      channel.close();
      throw e;
    }
  }

  private static SocketAddress address(URI uri) {
    if (!"nbd+unix".equals(uri.getScheme())) {
      return new InetSocketAddress(uri.getHost(), uri.getPort());
    }
    String query = uri.getQuery();
    if (query == null || !query.startsWith("socket=")) {
      throw new IllegalArgumentException(uri + " names no socket");
    }
    return UnixDomainSocketAddress.of(query.substring("socket=".length()));
  }

  /** The size of the export in bytes. */
  public long exportBytes() {
    return export.bytes();
  }

  /** The transmission flags that the server sent. */
  public int transmissionFlags() {
    return export.flags();
  }

  /** Fills what remains of {@code target}; it must not be touched until the future completes. */
  public CompletableFuture<Void> read(long offset, ByteBuffer target) {
    Pending read = new Pending(offset, target);
    send(CMD_READ, 0, offset, target.remaining(), ByteBuffer.allocate(0), read);
    return read.future;
  }

  /** Writes what remains of {@code source}. */
  public CompletableFuture<Void> write(long offset, ByteBuffer source, int flags) {
    Pending write = new Pending(offset, ByteBuffer.allocate(0));
    send(CMD_WRITE, flags, offset, source.remaining(), source, write);
    return write.future;
  }

  public CompletableFuture<Void> trim(long offset, int bytes, int flags) {
    return withoutPayload(CMD_TRIM, flags, offset, bytes);
  }

  /** Asks the server to have the range at hand. */
  public CompletableFuture<Void> cache(long offset, int bytes) {
    return withoutPayload(CMD_CACHE, 0, offset, bytes);
  }

  public CompletableFuture<Void> writeZeroes(long offset, int bytes, int flags) {
    return withoutPayload(CMD_WRITE_ZEROES, flags, offset, bytes);
  }

  public CompletableFuture<Void> flush() {
    return withoutPayload(CMD_FLUSH, 0, 0, 0);
  }

  private CompletableFuture<Void> withoutPayload(int type, int flags, long offset, int bytes) {
    Pending request = new Pending(offset, ByteBuffer.allocate(0));
    send(type, flags, offset, bytes, ByteBuffer.allocate(0), request);
    return request.future;
  }

  /** Waits for a request and throws what it failed with. */
  public static void await(CompletableFuture<?> request) throws IOException {
    try {
      var _ = request.get(WAIT_SECONDS, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof NbdException refused) {
        throw refused;
      }
      throw new IOException("the request failed", e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", e);
    } catch (TimeoutException e) {
      throw new IOException("no reply within " + WAIT_SECONDS + " s", e);
    }
  }

  private void send(int type, int flags, long offset, int bytes, ByteBuffer payload, Pending to) {
    long cookie = cookies.getAndIncrement();
    ByteBuffer header = ByteBuffer.allocate(28);
    header.putInt(0x25609513).putShort((short) flags).putShort((short) type);
    header.putLong(cookie).putLong(offset).putInt(bytes).flip();
    pending.put(cookie, to);
    try {
      synchronized (writeLock) {
        ByteBuffer[] parts = {header, payload};
        while (header.hasRemaining() || payload.hasRemaining()) {
          channel.write(parts);
        }
      }
    } catch (IOException e) {
      pending.remove(cookie);
      to.future.completeExceptionally(e);
    }
    if (!reader.isAlive() && pending.remove(cookie) != null) {
      to.future.completeExceptionally(new IOException("the connection was lost"));
    }
  }

  private void readReplies() {
    IOException end = new IOException("the connection was closed");
    try {
      ReplyReader replies = new ReplyReader(channel, export.structured(), pending);
      while (replies.readOne()) {}
    } catch (IOException e) {
      end = e;
    }
    for (Pending left : pending.values()) {
      left.future.completeExceptionally(end);
    }
    pending.clear();
    if (!closing) {
      closeQuietly();
    }
  }

  private void closeQuietly() {
    try {
      channel.close();
    } catch (IOException e) {
      throw new AssertionError("closing a socket", e);
    }
  }

  /** Drops the connection without a word, as a client that crashed does. */
  public void abort() throws IOException {
    closing = true;
    channel.close();
  }

  /** Says goodbye, waits until the server has answered what was sent before, and closes. */
  @Override
  public void close() throws IOException {
    closing = true;
    if (channel.isOpen() && reader.isAlive()) {
      Pending none = new Pending(0, ByteBuffer.allocate(0));
      send(CMD_DISC, 0, 0, 0, ByteBuffer.allocate(0), none);
      try {
        reader.join(TimeUnit.SECONDS.toMillis(WAIT_SECONDS));
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    channel.close();
  }

  static String utf8(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  /** A request without its whole reply. Owner: the reader thread, once the request is sent. */
  static final class Pending {
    final long offset;
    final ByteBuffer target;
    final int start;
    final int bytes;
    final CompletableFuture<Void> future = new CompletableFuture<>();

    /** How many bytes of a read have arrived; the chunks of one reply never overlap. */
    int arrived;

    /** The first error among the chunks so far, 0 for none. */
    int error;

    String message = "";

    Pending(long offset, ByteBuffer target) {
      this.offset = offset;
      this.target = target;
      this.start = target.position();
      this.bytes = target.remaining();
    }
  }
}
