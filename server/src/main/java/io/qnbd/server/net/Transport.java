package io.qnbd.server.net;

import io.netty.channel.IoHandlerFactory;
import io.netty.channel.ServerChannel;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.nio.NioServerDomainSocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Path;

/** Which of Netty's socket implementations is used. */
enum Transport {
  EPOLL {
    @Override
    IoHandlerFactory handlers() {
      return RenewingEpollHandler.newFactory();
    }

    @Override
    Class<? extends ServerChannel> tcp() {
      return EpollServerSocketChannel.class;
    }

    @Override
    Class<? extends ServerChannel> unix() {
      return EpollServerDomainSocketChannel.class;
    }

    @Override
    SocketAddress unixAddress(Path path) {
      return new DomainSocketAddress(path.toString());
    }

    @Override
    boolean halfClosesUnix() {
      return true;
    }
  },

  NIO {
    @Override
    IoHandlerFactory handlers() {
      return NioIoHandler.newFactory();
    }

    @Override
    Class<? extends ServerChannel> tcp() {
      return NioServerSocketChannel.class;
    }

    @Override
    Class<? extends ServerChannel> unix() {
      return NioServerDomainSocketChannel.class;
    }

    @Override
    SocketAddress unixAddress(Path path) {
      return UnixDomainSocketAddress.of(path);
    }

    @Override
    boolean halfClosesUnix() {
      return false;
    }
  };

  /** Epoll where its native library can be loaded, which spares wake-ups and garbage. */
  static Transport best() {
    return Epoll.isAvailable() ? EPOLL : NIO;
  }

  abstract IoHandlerFactory handlers();

  abstract Class<? extends ServerChannel> tcp();

  abstract Class<? extends ServerChannel> unix();

  abstract SocketAddress unixAddress(Path path);

  /**
   * Whether replies can still be sent on a unix socket whose client has stopped sending. Where not,
   * such a client loses the replies that were under way; a DISC loses none.
   */
  abstract boolean halfClosesUnix();
}
