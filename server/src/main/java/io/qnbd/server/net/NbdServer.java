package io.qnbd.server.net;

import io.netty.buffer.ByteBufAllocator;
import io.netty.channel.Channel;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.util.concurrent.DefaultThreadFactory;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.MemoryBudget;
import io.qnbd.server.export.ServedExports;
import io.qnbd.server.export.Workers;
import java.io.IOException;
import java.net.SocketAddress;
import java.time.Duration;
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

  /** How long clients that are just choosing an export get to show up in it. */
  private static final long RETRY_MILLIS = 10;

  private final EventLoopGroup loops;
  private final Workers workers;
  private final MemoryBudget budget;
  private final Clients clients;
  private final ServerParts parts;
  private final Listeners listeners;

  /** Set before the clients are gone through for the last time, read after one is added. */
  private volatile boolean stopping;

  private NbdServer(
      ServedExports exports, ServerLimits limits, Transport transport, TlsSettings tls) {
    this.workers = new Workers(limits.workerThreads());
    this.loops =
        new MultiThreadIoEventLoopGroup(
            limits.eventLoopThreads(),
            new DefaultThreadFactory("qnbd-loop", true),
            transport.handlers(lookouts(limits, workers)));
    this.budget = new MemoryBudget(limits.bytesTotal());
    this.clients = new Clients(limits, loops);
    this.parts = new ServerParts(exports, limits, workers, budget, clients, tls);
    this.listeners = new Listeners(loops, transport, this::accept);
  }

  /**
   * Does now what else the first start would have to do: for a thread of a program that has other
   * things to do before it. Never needed.
   */
  public static void prepare() {
    log.debug("{}, {}, {}", ServerLimits.DEFAULT, Transport.best(), ByteBufAllocator.DEFAULT);
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
        server.listeners.open(address);
      }
    } catch (IOException failed) {
      server.abandon();
      throw failed;
    }
    return server;
  }

  /**
   * The addresses that are listened on, in the order given, with ports as the system chose them:
   * {@link java.net.InetSocketAddress} and {@link java.net.UnixDomainSocketAddress}. A host that
   * has several addresses is listened on at each.
   */
  public List<SocketAddress> addresses() {
    return listeners.addresses();
  }

  /**
   * Runs {@code action} each time that the last client has gone that had chosen an export; at once,
   * too, if that has happened already. It runs on an event loop, or on this thread, and must not
   * wait.
   */
  public void onIdle(Runnable action) {
    clients.onIdle(action);
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
    } while (!export.seats().awaitEmpty(RETRY_MILLIS) && nanosLeft(start, nanos) > 0);
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
    listeners.close();
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

  private static PollingStrategy.Lookouts lookouts(ServerLimits limits, Workers workers) {
    int processors = limits.fastPath() ? Runtime.getRuntime().availableProcessors() : 0;
    return PollingStrategy.Lookouts.forProcessors(processors, workers::callsInProgress);
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

  private void abandon() {
    listeners.close();
    loops.shutdownGracefully(0, 0, TimeUnit.NANOSECONDS).awaitUninterruptibly();
    workers.shutdown();
  }
}
