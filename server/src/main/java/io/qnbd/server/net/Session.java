package io.qnbd.server.net;

import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.EventLoop;
import io.netty.util.concurrent.ScheduledFuture;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.codec.HandshakeListener;
import io.qnbd.protocol.codec.ReceiveBuffers;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.MemoryBudget;
import io.qnbd.server.export.ServedExports;
import io.qnbd.server.export.Workers;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * One accepted socket: its handshake, which a deadline bounds, and then its {@link Connection}.
 *
 * <p>Owner: the channel's event loop.
 */
final class Session implements HandshakeListener {
  private final Channel channel;
  private final ReceiveBuffers receiveBuffers = new ReceiveBuffers();
  private final ServedExports exports;
  private final ServerLimits limits;
  private final Workers workers;
  private final MemoryBudget budget;
  private final ProblemLog problems;
  private final ScheduledFuture<?> deadline;
  private @Nullable Connection connection;

  Session(
      Channel channel,
      ServedExports exports,
      ServerLimits limits,
      Workers workers,
      MemoryBudget budget) {
    this.channel = channel;
    channel.config().setRecvByteBufAllocator(receiveBuffers);
    this.exports = exports;
    this.limits = limits;
    this.workers = workers;
    this.budget = budget;
    this.problems = new ProblemLog("client " + peerOf(channel));
    this.deadline =
        channel
            .eventLoop()
            .schedule(
                this::deadlinePassed, limits.handshakeDeadline().toNanos(), TimeUnit.NANOSECONDS);
  }

  @Override
  public void startTls(ChannelHandlerContext decoder) {
    throw new AssertionError("TLS was not offered");
  }

  @Override
  public void chosen(Negotiated negotiated, Runnable enter) {
    Optional<Export> export = exports.export(negotiated.export().name());
    if (export.isEmpty()) {
      throw new AssertionError("negotiated an export that is not served: " + negotiated);
    }
    EventLoop loop = channel.eventLoop();
    export
        .get()
        .fence()
        .whenClear(() -> {
          if (loop.inEventLoop()) {
            enter.run();
          } else {
            loop.execute(enter);
          }
        });
  }

  @Override
  public void transmitting(Negotiated negotiated) {
    deadline.cancel(false);
    Export export = exports.export(negotiated.export().name()).orElseThrow();
    Connection entered =
        new Connection(channel, negotiated, export, limits, workers, budget, problems);
    connection = entered;
    export.requests().connected();
    channel.closeFuture().addListener(_ -> export.requests().disconnected());
    receiveBuffers.use(entered.decoder());
    channel.pipeline().addLast(entered.decoder(), entered);
    problems.debug("uses export " + WireStrings.quote(export.info().name()));
  }

  @Override
  public void failed(String reason) {
    deadline.cancel(false);
    problems.debug("handshake ended: " + reason);
  }

  /** Ends the connection in order, or at once when it is still in its handshake. */
  void shutDown() {
    Connection entered = connection;
    if (entered == null) {
      var _ = channel.close();
    } else {
      entered.shutDown();
    }
  }

  private void deadlinePassed() {
    problems.disconnecting(
        "no export chosen in " + limits.handshakeDeadline().toMillis() + " milliseconds");
    var _ = channel.close();
  }

  private static String peerOf(Channel channel) {
    String peer = String.valueOf(channel.remoteAddress());
    return peer.isEmpty() || peer.equals("null") ? "on " + channel.localAddress() : peer;
  }
}
