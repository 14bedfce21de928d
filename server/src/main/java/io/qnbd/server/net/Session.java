package io.qnbd.server.net;

import io.netty.channel.Channel;
import io.netty.channel.ChannelHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.EventLoop;
import io.netty.util.concurrent.ScheduledFuture;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.codec.HandshakeDecoder;
import io.qnbd.protocol.codec.HandshakeListener;
import io.qnbd.protocol.codec.ReceiveBuffers;
import io.qnbd.protocol.handshake.Handshake;
import io.qnbd.server.export.Export;
import io.qnbd.server.tls.TlsIdentity;
import io.qnbd.server.tls.TlsService;
import java.net.InetSocketAddress;
import java.time.Instant;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * One accepted socket: its handshake, which a deadline bounds, and then its {@link Connection}.
 *
 * <p>Owner: the channel's event loop; {@link #info}, {@link #uses}, {@link #pushOut} and {@link
 * #cutOff} are for any thread.
 */
final class Session implements HandshakeListener, ClientCatalog.Client {
  /** How long a client that is in its handshake while the server stops is told so. */
  private static final long REFUSING_MILLIS = 250;

  private final long id;
  private final Instant since = Instant.now();
  private final Channel channel;
  private final String peer;
  private final String address;
  private final ReceiveBuffers receiveBuffers = new ReceiveBuffers();
  private final ServerParts parts;
  private final ProblemLog problems;
  private final ScheduledFuture<?> deadline;
  private final ClientCatalog catalog;
  private final Handshake handshake;
  private @Nullable Connection connection;

  // Written by the event loop alone.
  private volatile @Nullable ChannelHandler tlsHandler;
  private volatile @Nullable TlsIdentity identity;
  private volatile @Nullable Export export;

  Session(long id, Channel channel, ServerParts parts) {
    this.id = id;
    this.channel = channel;
    this.peer = peerOf(channel);
    this.address =
        channel.remoteAddress() instanceof InetSocketAddress tcp
            ? tcp.getAddress().getHostAddress()
            : peer;
    this.parts = parts;
    this.problems = new ProblemLog("client " + peer);
    this.catalog = new ClientCatalog(parts.exports(), this);
    this.handshake = new Handshake(catalog, parts.tls().mode());
    ServerLimits limits = parts.limits();
    this.deadline =
        channel
            .eventLoop()
            .schedule(
                this::deadlinePassed, limits.handshakeDeadline().toNanos(), TimeUnit.NANOSECONDS);
    channel.config().setRecvByteBufAllocator(receiveBuffers);
    channel.closeFuture().addListener(_ -> closed());
  }

  /** Begins to talk. */
  void start() {
    channel.pipeline().addLast(new HandshakeDecoder(handshake, this));
  }

  long id() {
    return id;
  }

  Channel channel() {
    return channel;
  }

  boolean uses(Export which) {
    return export == which;
  }

  ClientInfo info() {
    Export chosen = export;
    TlsIdentity shown = identity;
    return new ClientInfo(
        id,
        peer,
        chosen == null ? null : chosen.info().name(),
        shown == null || shown.name().isEmpty() ? null : shown.name(),
        tlsHandler != null,
        since);
  }

  // What the catalog asks.

  @Override
  public String address() {
    return address;
  }

  @Override
  public boolean tls() {
    return tlsHandler != null;
  }

  @Override
  public @Nullable String identity() {
    ChannelHandler handler = tlsHandler;
    TlsService service = parts.tls().service();
    if (identity == null && handler != null && service != null) {
      identity = service.identityOf(handler);
    }
    TlsIdentity shown = identity;
    return shown == null || shown.name().isEmpty() ? null : shown.name();
  }

  // What the handshake tells.

  @Override
  public void startTls(ChannelHandlerContext decoder) {
    TlsService service = parts.tls().service();
    if (service == null) {
      throw new AssertionError("TLS was agreed on without any");
    }
    ChannelHandler handler = service.newHandler(channel);
    tlsHandler = handler;
    channel.pipeline().addFirst("tls", handler);
  }

  @Override
  public void chosen(Negotiated negotiated, Runnable enter) {
    Export chosen = catalog.chosen();
    if (chosen == null) {
      throw new AssertionError("negotiated an export that was not chosen: " + negotiated);
    }
    export = chosen;
    EventLoop loop = channel.eventLoop();
    // A connection that this client lost may wait, reset, on another loop: once every loop has
    // looked at its sockets, the fence knows of it.
    parts
        .clients()
        .afterPendingEvents(() ->
            chosen
                .fence()
                .whenClear(() -> {
                  if (loop.inEventLoop()) {
                    enter.run();
                  } else {
                    loop.execute(enter);
                  }
                }));
  }

  @Override
  public void transmitting(Negotiated negotiated) {
    deadline.cancel(false);
    Export chosen = export;
    if (chosen == null) {
      throw new AssertionError("no export was chosen");
    }
    parts.clients().transmitting(this);
    Connection entered = new Connection(channel, negotiated, chosen, parts, problems);
    connection = entered;
    chosen.requests().connected();
    channel.closeFuture().addListener(_ -> chosen.requests().disconnected());
    if (tlsHandler == null) {
      receiveBuffers.use(entered.decoder());
    }
    channel.pipeline().addLast(entered.decoder(), entered);
    problems.debug("uses export " + WireStrings.quote(chosen.info().name()));
  }

  @Override
  public void failed(String reason) {
    deadline.cancel(false);
    problems.debug("handshake ended: " + reason);
  }

  // The end.

  /** Ends the connection in order. On the event loop. */
  void shutDown() {
    Connection entered = connection;
    if (entered != null) {
      entered.shutDown();
      return;
    }
    handshake.shutDown();
    var _ = channel.eventLoop().schedule(this::close, REFUSING_MILLIS, TimeUnit.MILLISECONDS);
  }

  /** Makes room for a newer client. */
  void pushOut() {
    problems.disconnecting("too many clients are in their handshake, and this is the oldest");
    close();
  }

  /** Ends the connection at once, with requests that are not done. */
  void cutOff() {
    problems.disconnecting("its requests did not end in time");
    close();
  }

  private void close() {
    var _ = channel.close();
  }

  private void closed() {
    deadline.cancel(false);
    Connection entered = connection;
    if (entered != null) {
      entered.died(); // First of all, so that the fence is up when the seat is free.
    }
    Export chosen = catalog.chosen();
    if (chosen != null) {
      chosen.seats().leave(address());
    }
  }

  private void deadlinePassed() {
    problems.disconnecting(
        "no export chosen in " + parts.limits().handshakeDeadline().toMillis() + " milliseconds");
    close();
  }

  private static String peerOf(Channel channel) {
    String peer = String.valueOf(channel.remoteAddress());
    return peer.isEmpty() || peer.equals("null") ? "on " + channel.localAddress() : peer;
  }
}
