package io.qnbd.server.tls;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelPromise;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.ssl.SslCloseCompletionEvent;
import io.netty.handler.ssl.SslHandshakeCompletionEvent;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * Speaks TLS from the first byte and tells what it sees. A {@code 'B'} that comes first makes it
 * send {@link #BLOB_BYTES} in one write; one {@code 'Q'} makes it close; anything else comes back.
 */
final class TlsTestServer implements AutoCloseable {
  static final int BLOB_BYTES = 64 << 20;
  private static final int DEADLINE_SECONDS = 60;

  /** What happened on some connection. */
  sealed interface Event {
    record Established(@Nullable TlsIdentity identity) implements Event {}

    record Refused(Throwable cause) implements Event {}

    record Closed(boolean orderly) implements Event {}

    record BlobSent() implements Event {}

    record Failed(Throwable cause) implements Event {}

    record Gone() implements Event {}
  }

  private final TlsService service;
  private final boolean readOnDemand;
  private final EventLoopGroup loops =
      new MultiThreadIoEventLoopGroup(1, NioIoHandler.newFactory());
  private final Channel listener;
  private final BlockingQueue<Event> events = new LinkedBlockingQueue<>();

  TlsTestServer(TlsFiles files) throws IOException {
    this(files, false);
  }

  TlsTestServer(TlsFiles files, boolean readOnDemand) throws IOException {
    this.service = TlsService.open(files);
    this.readOnDemand = readOnDemand;
    this.listener =
        new ServerBootstrap()
            .group(loops)
            .channel(NioServerSocketChannel.class)
            .childHandler(
                new ChannelInitializer<Channel>() {
                  @Override
                  protected void initChannel(Channel channel) {
                    channel.config().setAutoRead(!readOnDemand);
                    ChannelHandler tls = service.newHandler(channel);
                    channel.pipeline().addLast(tls, new Application(tls));
                  }
                })
            .bind(InetAddress.getLoopbackAddress(), 0)
            .syncUninterruptibly()
            .channel();
  }

  TlsService service() {
    return service;
  }

  Socket connect() throws IOException {
    InetSocketAddress address = (InetSocketAddress) listener.localAddress();
    Socket socket = new Socket(address.getAddress(), address.getPort());
    socket.setTcpNoDelay(true);
    socket.setSoTimeout(DEADLINE_SECONDS * 1000);
    return socket;
  }

  int port() {
    return ((InetSocketAddress) listener.localAddress()).getPort();
  }

  /** The next thing that happened; waits for it. */
  Event next() throws InterruptedException {
    Event event = events.poll(DEADLINE_SECONDS, TimeUnit.SECONDS);
    if (event == null) {
      throw new AssertionError("nothing happened in " + DEADLINE_SECONDS + " seconds");
    }
    return event;
  }

  /** The next thing of a kind; what comes before it is skipped. */
  <E extends Event> E next(Class<E> kind) throws InterruptedException {
    while (true) {
      Event event = next();
      if (kind.isInstance(event)) {
        return kind.cast(event);
      }
    }
  }

  @Override
  public void close() {
    service.close();
    listener.close().syncUninterruptibly();
    loops.shutdownGracefully(0, DEADLINE_SECONDS, TimeUnit.SECONDS).syncUninterruptibly();
  }

  /** The n-th byte of the blob. */
  static byte blob(int n) {
    return (byte) (n * 31 + (n >>> 14));
  }

  private final class Application extends ChannelInboundHandlerAdapter {
    private final ChannelHandler tls;
    private boolean started;

    Application(ChannelHandler tls) {
      this.tls = tls;
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
      ByteBuf data = (ByteBuf) message;
      byte first = data.getByte(data.readerIndex());
      boolean command = !started;
      started = true;
      if (command && first == 'B') {
        data.release();
        sendBlob(ctx);
      } else if (command && first == 'Q') {
        data.release();
        var _ = ctx.close();
      } else {
        var _ = ctx.write(data, ctx.voidPromise());
      }
    }

    private void sendBlob(ChannelHandlerContext ctx) {
      byte[] bytes = new byte[BLOB_BYTES];
      for (int i = 0; i < BLOB_BYTES; i++) {
        bytes[i] = blob(i);
      }
      ByteBuf blob = ctx.alloc().directBuffer(BLOB_BYTES).writeBytes(bytes);
      ChannelPromise sent = ctx.newPromise();
      sent.addListener(done ->
          events.add(done.isSuccess() ? new Event.BlobSent() : new Event.Failed(done.cause())));
      var _ = ctx.writeAndFlush(blob, sent);
    }

    @Override
    public void channelReadComplete(ChannelHandlerContext ctx) {
      ctx.flush();
      if (readOnDemand && started) {
        ctx.read();
      }
    }

    @Override
    public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
      switch (event) {
        case SslHandshakeCompletionEvent handshake -> {
          events.add(
              handshake.isSuccess()
                  ? new Event.Established(service.identityOf(tls))
                  : new Event.Refused(handshake.cause()));
          if (readOnDemand) {
            ctx.read();
          }
        }
        case SslCloseCompletionEvent close -> events.add(new Event.Closed(close.isSuccess()));
        default -> {}
      }
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
      events.add(new Event.Failed(cause));
      var _ = ctx.close();
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
      events.add(new Event.Gone());
    }
  }
}
