package io.qnbd.server.net;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.util.concurrent.DefaultThreadFactory;
import io.qnbd.protocol.codec.HandshakeDecoder;
import io.qnbd.protocol.handshake.Handshake;
import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.export.MemoryBudget;
import io.qnbd.server.export.ServedExports;
import io.qnbd.server.export.Workers;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Listens for NBD clients and serves them until it is shut down.
 *
 * <p>Images are not its own: whoever opened them closes them, after {@link #shutdown}.
 *
 * <p>Thread-safe.
 */
public final class NbdServer {
  private static final Logger log = LoggerFactory.getLogger(NbdServer.class);

  /** Of a shutdown's time, what is kept for waiting for the image after cutting connections. */
  private static final int HARD_STOP_SHARE = 4;

  private final ServedExports exports;
  private final ServerLimits limits;
  private final Transport transport;
  private final EventLoopGroup loops;
  private final Workers workers;
  private final MemoryBudget budget;
  private final Map<Channel, Session> sessions = new ConcurrentHashMap<>();
  private final List<Channel> listeners = new ArrayList<>();
  private final List<Path> socketFiles = new ArrayList<>();

  /** Set before {@code sessions} is gone through for the last time, read after one is put in. */
  private volatile boolean stopping;

  private NbdServer(ServedExports exports, ServerLimits limits, Transport transport) {
    this.exports = exports;
    this.limits = limits;
    this.transport = transport;
    this.loops =
        new MultiThreadIoEventLoopGroup(
            limits.eventLoopThreads(),
            new DefaultThreadFactory("qnbd-loop", true),
            transport.handlers());
    this.workers = new Workers(limits.workerThreads());
    this.budget = new MemoryBudget(limits.bytesTotal());
  }

  /**
   * Starts to listen on all {@code addresses}, or on none.
   *
   * @throws IOException when one of them cannot be had; its message is one sentence that names it
   */
  public static NbdServer start(
      ServedExports exports, List<ListenAddress> addresses, ServerLimits limits)
      throws IOException {
    return start(exports, addresses, limits, Transport.best());
  }

  static NbdServer start(
      ServedExports exports,
      List<ListenAddress> addresses,
      ServerLimits limits,
      Transport transport)
      throws IOException {
    NbdServer server = new NbdServer(exports, limits, transport);
    try {
      for (ListenAddress address : addresses) {
        server.listen(address);
      }
    } catch (IOException failed) {
      server.abandon();
      throw failed;
    }
    return server;
  }

  /**
   * The addresses that are listened on, in the order given, with ports as the system chose them.
   */
  public List<SocketAddress> addresses() {
    return listeners.stream().map(Channel::localAddress).toList();
  }

  /** Connections at this moment, those in their handshake included. */
  public int connectionCount() {
    return sessions.size();
  }

  /** Bytes that requests in flight hold at this moment. */
  public long bytesInFlight() {
    return budget.usedBytes();
  }

  /**
   * Stops: takes no more connections, finishes and answers every request that has come, answers
   * later ones ESHUTDOWN for a moment, closes the connections, and returns when no image call is in
   * progress. Connections that are not done after three quarters of {@code bound} are cut, and what
   * they have not started is dropped.
   *
   * <p>Not to be called from an event loop or a worker.
   *
   * @return false when an image call was still in progress after {@code bound}; it goes on, and the
   *     image should not be closed under it
   */
  public boolean shutdown(Duration bound) throws InterruptedException {
    long start = System.nanoTime();
    long nanos = bound.toNanos();
    stopping = true;
    closeListeners();
    sessions.forEach((channel, session) -> channel.eventLoop().execute(session::shutDown));
    long soft = start + nanos - nanos / HARD_STOP_SHARE;
    for (Channel channel : sessions.keySet()) {
      channel.closeFuture().await(Math.max(0, soft - System.nanoTime()), TimeUnit.NANOSECONDS);
    }
    for (Channel channel : sessions.keySet()) {
      if (channel.isOpen()) {
        log.warn("client {}: cut off, its requests did not end in time", channel.remoteAddress());
      }
      channel.close().await(nanosLeft(start, nanos), TimeUnit.NANOSECONDS);
    }
    boolean quiet = workers.awaitQuiet(nanosLeft(start, nanos));
    workers.shutdown();
    // No quiet period: all channels are closed, and tasks that are already queued still run.
    loops
        .shutdownGracefully(0, nanosLeft(start, nanos), TimeUnit.NANOSECONDS)
        .await(nanosLeft(start, nanos), TimeUnit.NANOSECONDS);
    return quiet;
  }

  private static long nanosLeft(long start, long nanos) {
    return Math.max(0, nanos - (System.nanoTime() - start));
  }

  private void listen(ListenAddress address) throws IOException {
    ServerBootstrap bootstrap =
        new ServerBootstrap()
            .group(loops)
            .childHandler(
                new ChannelInitializer<Channel>() {
                  @Override
                  protected void initChannel(Channel channel) {
                    accept(channel);
                  }
                });
    SocketAddress socketAddress =
        switch (address) {
          case ListenAddress.Tcp(String host, int port) -> {
            bootstrap
                .channel(transport.tcp())
                .childOption(ChannelOption.ALLOW_HALF_CLOSURE, true)
                .option(ChannelOption.SO_REUSEADDR, true)
                .childOption(ChannelOption.TCP_NODELAY, true)
                .childOption(ChannelOption.SO_KEEPALIVE, true);
            yield host.isEmpty() ? new InetSocketAddress(port) : new InetSocketAddress(host, port);
          }
          case ListenAddress.Unix(Path path) -> {
            if (Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
              throw new IOException(
                  "listening on " + path + ": the path exists; remove it or choose another");
            }
            bootstrap.channel(transport.unix());
            if (transport.halfClosesUnix()) {
              bootstrap.childOption(ChannelOption.ALLOW_HALF_CLOSURE, true);
            }
            yield transport.unixAddress(path);
          }
        };
    if (socketAddress instanceof InetSocketAddress inet && inet.isUnresolved()) {
      throw new IOException("listening on " + address + ": no such host");
    }
    bind(bootstrap, socketAddress, address);
    if (address instanceof ListenAddress.Unix(Path path)) {
      socketFiles.add(path);
    }
  }

  private void bind(ServerBootstrap bootstrap, SocketAddress socketAddress, ListenAddress address)
      throws IOException {
    ChannelFuture bound = bootstrap.bind(socketAddress).awaitUninterruptibly();
    Throwable cause = bound.cause();
    if (cause == null) {
      listeners.add(bound.channel());
      return;
    }
    String why = String.valueOf(cause.getMessage());
    if (why.contains("Cannot assign")) {
      why = "this machine has no such address";
    } else if (why.contains("already in use")) {
      why = "the port is in use";
    }
    throw new IOException("listening on " + address + ": " + why, cause);
  }

  private void accept(Channel channel) {
    if (sessions.size() >= limits.connectionsMax()) {
      log.debug("client {}: too many connections", channel.remoteAddress());
      var _ = channel.close();
      return;
    }
    Session session = new Session(channel, exports, limits, workers, budget);
    sessions.put(channel, session);
    if (stopping) {
      // Accepted while the listener was being closed; shutdown may have missed it.
      var _ = channel.close();
    }
    channel.closeFuture().addListener(_ -> sessions.remove(channel));
    channel.pipeline().addLast(new HandshakeDecoder(new Handshake(exports, TlsMode.OFF), session));
  }

  private void closeListeners() {
    for (Channel listener : listeners) {
      listener.close().awaitUninterruptibly();
    }
    for (Path path : socketFiles) {
      try {
        Files.deleteIfExists(path);
      } catch (IOException failed) {
        log.warn("deleting the socket {}: {}", path, failed.getMessage());
      }
    }
  }

  private void abandon() {
    closeListeners();
    loops.shutdownGracefully(0, 0, TimeUnit.NANOSECONDS).awaitUninterruptibly();
    workers.shutdown();
  }
}
