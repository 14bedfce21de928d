package io.qnbd.server.net;

import io.netty.channel.Channel;
import io.netty.channel.EventLoopGroup;
import io.netty.util.concurrent.EventExecutor;
import io.qnbd.server.export.Export;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Predicate;

/**
 * The connections of a server, from their acceptance to their end.
 *
 * <p>Of those that are still in their handshake, which anybody can open, only the newest are kept:
 * a flood of them pushes out its own, while a client that goes on with its handshake is through
 * before it becomes the oldest.
 *
 * <p>Thread-safe.
 */
final class Clients {
  private final ServerLimits limits;
  private final EventLoopGroup loops;
  private final AtomicLong lastId = new AtomicLong();
  private final Map<Long, Session> sessions = new ConcurrentHashMap<>();
  private final ClientCount users = new ClientCount();

  /** In the order of their acceptance; guarded by its own monitor. */
  private final Set<Session> handshaking = new LinkedHashSet<>();

  Clients(ServerLimits limits, EventLoopGroup loops) {
    this.limits = limits;
    this.loops = loops;
  }

  /**
   * Runs {@code action} on an event loop once each loop has handled what its sockets had to tell at
   * the time of this call.
   */
  void afterPendingEvents(Runnable action) {
    List<EventExecutor> all = new ArrayList<>();
    loops.forEach(all::add);
    AtomicInteger left = new AtomicInteger(all.size());
    for (EventExecutor loop : all) {
      Runnable arrived =
          () -> {
            if (left.decrementAndGet() == 0) {
              action.run();
            }
          };
      // A task may run in the same batch as others, but what a task schedules waits for the next
      // batch, and between batches the loop looks at its sockets.
      loop.execute(() -> {
        var _ = loop.schedule(arrived, 0, TimeUnit.NANOSECONDS);
      });
    }
  }

  long nextId() {
    return lastId.incrementAndGet();
  }

  boolean full() {
    return sessions.size() >= limits.connectionsMax();
  }

  int count() {
    return sessions.size();
  }

  /** Keeps {@code session} until its channel closes. */
  void add(Session session) {
    sessions.put(session.id(), session);
    Session oldest = null;
    synchronized (handshaking) {
      handshaking.add(session);
      if (handshaking.size() > limits.handshakesMax()) {
        oldest = handshaking.iterator().next();
        handshaking.remove(oldest);
      }
    }
    if (oldest != null) {
      oldest.pushOut();
    }
    session
        .channel()
        .closeFuture()
        .addListener(_ -> {
          sessions.remove(session.id());
          handshakeEnded(session);
        });
  }

  /** The client has chosen an export and sends requests from now on. */
  void transmitting(Session session) {
    handshakeEnded(session);
    users.enter();
    session.channel().closeFuture().addListener(_ -> users.leave());
  }

  /** As {@link ClientCount#onIdle}. */
  void onIdle(Runnable action) {
    users.onIdle(action);
  }

  private void handshakeEnded(Session session) {
    synchronized (handshaking) {
      handshaking.remove(session);
    }
  }

  List<ClientInfo> infos() {
    return sessions.values().stream()
        .map(Session::info)
        .sorted(Comparator.comparingLong(ClientInfo::id))
        .toList();
  }

  /** Ends a connection in order; false when there is none of that id. */
  boolean disconnect(long id) {
    Session session = sessions.get(id);
    if (session == null) {
      return false;
    }
    session.channel().eventLoop().execute(session::shutDown);
    return true;
  }

  /**
   * Ends the connections in order, and cuts those off that are not gone after {@code softNanos}.
   * Returns when the channels are closed, or when {@code nanos} have passed.
   */
  void disconnectAll(Predicate<Session> which, long softNanos, long nanos)
      throws InterruptedException {
    long start = System.nanoTime();
    List<Session> leaving = sessions.values().stream().filter(which).toList();
    leaving.forEach(session -> session.channel().eventLoop().execute(session::shutDown));
    awaitClosed(leaving, start, softNanos);
    for (Session session : leaving) {
      if (session.channel().isOpen()) {
        session.cutOff();
      }
    }
    awaitClosed(leaving, start, nanos);
  }

  /** Those that use {@code export} or have chosen it. */
  static Predicate<Session> using(Export export) {
    return session -> session.uses(export);
  }

  private static void awaitClosed(Collection<Session> leaving, long start, long nanos)
      throws InterruptedException {
    for (Session session : new ArrayList<>(leaving)) {
      Channel channel = session.channel();
      long left = nanos - (System.nanoTime() - start);
      channel.closeFuture().await(Math.max(0, left), TimeUnit.NANOSECONDS);
    }
  }
}
