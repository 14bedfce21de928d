package io.qnbd.server.net;

import io.netty.channel.ChannelOption;
import io.netty.channel.IoHandlerFactory;
import io.netty.channel.ServerChannel;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.epoll.EpollChannelOption;
import io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.SocketProtocolFamily;
import io.netty.channel.socket.nio.NioChannelOption;
import io.netty.channel.socket.nio.NioServerDomainSocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.spi.SelectorProvider;
import java.nio.file.Path;
import java.util.Map;
import jdk.net.ExtendedSocketOptions;

/** Which of Netty's socket implementations is used. */
enum Transport {
  EPOLL {
    @Override
    IoHandlerFactory handlers(PollingStrategy.Lookouts lookouts) {
      return RenewingEpollHandler.newFactory(lookouts);
    }

    @Override
    ServerChannel tcp(SocketProtocolFamily family) {
      return new EpollServerSocketChannel(family);
    }

    @Override
    ServerChannel unix() {
      return new EpollServerDomainSocketChannel();
    }

    @Override
    SocketAddress unixAddress(Path path) {
      return new DomainSocketAddress(path.toString());
    }

    @Override
    boolean halfClosesUnix() {
      return true;
    }

    @Override
    boolean takesDescriptors() {
      return true;
    }

    @Override
    ServerChannel inherited(int fd, boolean unix) {
      return unix ? new EpollServerDomainSocketChannel(fd) : new EpollServerSocketChannel(fd);
    }

    @Override
    Map<ChannelOption<Integer>, Integer> deadPeerOptions() {
      return Map.of(
          EpollChannelOption.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS,
          EpollChannelOption.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS,
          EpollChannelOption.TCP_KEEPCNT, KEEPALIVE_COUNT,
          EpollChannelOption.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLIS_MAX);
    }
  },

  NIO {
    @Override
    IoHandlerFactory handlers(PollingStrategy.Lookouts lookouts) {
      return NioIoHandler.newFactory();
    }

    @Override
    ServerChannel tcp(SocketProtocolFamily family) {
      return new NioServerSocketChannel(SelectorProvider.provider(), family);
    }

    @Override
    ServerChannel unix() {
      return new NioServerDomainSocketChannel();
    }

    @Override
    SocketAddress unixAddress(Path path) {
      return UnixDomainSocketAddress.of(path);
    }

    @Override
    boolean halfClosesUnix() {
      return false;
    }

    @Override
    boolean takesDescriptors() {
      return false;
    }

    @Override
    ServerChannel inherited(int fd, boolean unix) {
      throw new AssertionError("not asked for where descriptors are not taken");
    }

    @Override
    Map<ChannelOption<Integer>, Integer> deadPeerOptions() {
      return Map.of(
          NioChannelOption.of(ExtendedSocketOptions.TCP_KEEPIDLE), KEEPALIVE_IDLE_SECONDS,
          NioChannelOption.of(ExtendedSocketOptions.TCP_KEEPINTERVAL), KEEPALIVE_INTERVAL_SECONDS,
          NioChannelOption.of(ExtendedSocketOptions.TCP_KEEPCOUNT), KEEPALIVE_COUNT);
    }
  };

  /**
   * A machine that vanished is found after two minutes: a minute of silence, then six questions.
   * Linux's own defaults take over two hours.
   */
  static final int KEEPALIVE_IDLE_SECONDS = 60;

  static final int KEEPALIVE_INTERVAL_SECONDS = 10;
  static final int KEEPALIVE_COUNT = 6;

  /**
   * The same two minutes for a machine that vanished before it had all its replies: no keepalive is
   * sent while data is on its way, and resending it would be given up after a quarter of an hour
   * only. It ends a connection, too, whose client has read nothing for that long though replies
   * wait.
   */
  static final int UNACKNOWLEDGED_MILLIS_MAX =
      (KEEPALIVE_IDLE_SECONDS + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL_SECONDS) * 1000;

  /** Epoll where its native library can be loaded, which spares wake-ups and garbage. */
  static Transport best() {
    return Epoll.isAvailable() ? EPOLL : NIO;
  }

  /** What event loops wait with; those of NIO don't look out. */
  abstract IoHandlerFactory handlers(PollingStrategy.Lookouts lookouts);

  /**
   * A new TCP socket. One of {@link SocketProtocolFamily#INET6} takes IPv4 connections too if it is
   * bound to {@code ::}.
   */
  abstract ServerChannel tcp(SocketProtocolFamily family);

  abstract ServerChannel unix();

  abstract SocketAddress unixAddress(Path path);

  /**
   * Whether replies can still be sent on a unix socket whose client has stopped sending. Where not,
   * such a client loses the replies that were under way; a DISC loses none.
   */
  abstract boolean halfClosesUnix();

  /** Whether {@link #inherited} can be called. */
  abstract boolean takesDescriptors();

  /** A channel of a socket that listens already, which it then owns. */
  abstract ServerChannel inherited(int fd, boolean unix);

  /** What a TCP connection needs, beside SO_KEEPALIVE, to notice that its client is gone. */
  abstract Map<ChannelOption<Integer>, Integer> deadPeerOptions();
}
