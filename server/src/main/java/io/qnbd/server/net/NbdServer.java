package io.qnbd.server.net;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.util.concurrent.DefaultThreadFactory;
import io.qnbd.server.export.Export;
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
import java.util.concurrent.CountDownLatch;
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

  private final Transport transport;
  private final EventLoopGroup loops;
  private final Workers workers;
  private final MemoryBudget budget;
  private final Clients clients;
  private final ServerParts parts;
  private final List<Channel> listeners = new ArrayList<>();
  private final List<Path> socketFiles = new ArrayList<>();

  /** Set before the clients are gone through for the last time, read after one is added. */
  private volatile boolean stopping;

  private NbdServer(
      ServedExports exports, ServerLimits limits, Transport transport, TlsSettings tls) {
    this.transport = transport;
    this.loops =
        new MultiThreadIoEventLoopGroup(
            limits.eventLoopThreads(),
            new DefaultThreadFactory("qnbd-loop", true),
            transport.handlers());
    this.workers = new Workers(limits.workerThreads());
    this.budget = new MemoryBudget(limits.bytesTotal());
    this.clients = new Clients(limits);
    this.parts = new ServerParts(exports, limits, workers, budget, clients, tls);
  }

  /**
   * Starts to listen on all {@code addresses}, or on none.
   *
   * @throws IOException when one of them cannot be had; its message is one sentence that names it
   */
  public static NbdServer start(
      ServedExports exports, List<ListenAddress> addresses, ServerLimits limits, TlsSettings tls)
      throws IOException {
    return start(exports, addresses, limits, tls, Transport.best());
  }

  static NbdServer start(
      ServedExports exports,
      List<ListenAddress> addresses,
      ServerLimits limits,
      TlsSettings tls,
      Transport transport)
      throws IOException {
    NbdServer server = new NbdServer(exports, limits, transport, tls);
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
    return clients.count();
  }

  /** The connections at this moment, the oldest first. */
  public List<ClientInfo> clients() {
    return clients.infos();
  }

  /**
   * Ends a connection as at {@link #shutdown}, and returns at once.
   *
   * @return false when there is none of that id
   */
  public boolean disconnect(long id) {
    return clients.disconnect(id);
  }

  /**
   * Lets no further client use {@code export}, ends the connections that do, as at {@link
   * #shutdown}, and waits until no call of them is in the image. Afterwards the image may be closed
   * if that was so.
   *
   * <p>Not to be called from an event loop or a worker.
   *
   * @return false when a call was still in progress after {@code bound}
   */
  public boolean disconnectAll(Export export, Duration bound) throws InterruptedException {
    long start = System.nanoTime();
    long nanos = bound.toNanos();
    export.retire();
    do {
      // Again, for those that were choosing it just then.
      long left = nanosLeft(start, nanos);
      clients.disconnectAll(Clients.using(export), left - left / HARD_STOP_SHARE, left);
    } while (export.seats().taken() > 0 && nanosLeft(start, nanos) > 0);
    CountDownLatch clear = new CountDownLatch(1);
    export.fence().whenClear(clear::countDown);
    return clear.await(nanosLeft(start, nanos), TimeUnit.NANOSECONDS)
        && export.seats().taken() == 0;
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
    clients.disconnectAll(_ -> true, nanos - nanos / HARD_STOP_SHARE, nanosLeft(start, nanos));
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
    if (clients.full()) {
      log.debug("client {}: too many connections", channel.remoteAddress());
      var _ = channel.close();
      return;
    }
    Session session = new Session(clients.nextId(), channel, parts);
    clients.add(session);
    if (stopping) {
      // Accepted while the listener was being closed; shutdown may have missed it.
      var _ = channel.close();
    }
    session.start();
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
