package io.qnbd.server.net;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.ServerChannel;
import io.netty.channel.socket.SocketProtocolFamily;
import io.qnbd.server.os.SystemCalls;
import java.io.IOException;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The sockets on which a server waits for clients.
 *
 * <p>Owner: whoever opens and closes them, one thread at a time; never an event loop, which would
 * wait for itself.
 */
final class Listeners {
  private static final Logger log = LoggerFactory.getLogger(Listeners.class);

  /**
   * How often a port that the system chose for a host's first address may be taken at its others.
   * Chance is against a second time already.
   */
  private static final int PORT_TRIES = 16;

  private static final InetAddress EVERY_IPV6_ADDRESS = InetAddress.ofLiteral("::");
  private static final InetAddress EVERY_IPV4_ADDRESS = InetAddress.ofLiteral("0.0.0.0");

  /**
   * @param address as a client is told it
   * @param file the unix socket's file, if it is ours to delete
   */
  private record Listener(Channel channel, SocketAddress address, @Nullable Path file) {}

  private final EventLoopGroup loops;
  private final Transport transport;
  private final Consumer<Channel> accept;
  private final List<Listener> listeners = new ArrayList<>();

  /**
   * @param accept given each connection, on its event loop
   */
  Listeners(EventLoopGroup loops, Transport transport, Consumer<Channel> accept) {
    this.loops = loops;
    this.transport = transport;
    this.accept = accept;
  }

  /**
   * Listens at {@code address}; at none of its sockets when one of them cannot be had.
   *
   * @throws IOException whose message is one sentence that names the address
   */
  void open(ListenAddress address) throws IOException {
    switch (address) {
      case ListenAddress.Tcp tcp -> openTcp(tcp);
      case ListenAddress.Unix unix -> openUnix(unix);
      case ListenAddress.Inherited inherited -> openInherited(inherited);
    }
  }

  /** What is listened on, in the order it was opened, with ports as the system chose them. */
  List<SocketAddress> addresses() {
    return listeners.stream().map(Listener::address).toList();
  }

  /** Listens no more; connections that were accepted are not touched. */
  void close() {
    for (Listener listener : listeners) {
      listener.channel().close().awaitUninterruptibly();
      Path file = listener.file();
      if (file != null) {
        try {
          Files.deleteIfExists(file);
        } catch (IOException failed) {
          log.warn("deleting the socket {}: {}", file, failed.getMessage());
        }
      }
    }
  }

  private void openTcp(ListenAddress.Tcp address) throws IOException {
    if (address.host().isEmpty()) {
      openEverywhere(address);
      return;
    }
    openTcp(address, resolved(address));
  }

  /** Listens at one port of all {@code hosts}, which are what the address's host stands for. */
  void openTcp(ListenAddress.Tcp address, List<InetAddress> hosts) throws IOException {
    for (int tries = 1; true; tries++) {
      try {
        listeners.addAll(bindAll(address, hosts));
        return;
      } catch (BindFailure failed) {
        boolean unlucky =
            address.port() == 0 && hosts.size() > 1 && failed.kind() == BindFailure.Kind.IN_USE;
        if (!unlucky || tries == PORT_TRIES) {
          throw failed;
        }
      }
    }
  }

  private void openEverywhere(ListenAddress.Tcp address) throws IOException {
    try {
      listeners.add(bindTcp(address, EVERY_IPV6_ADDRESS, address.port()));
    } catch (BindFailure failed) {
      if (failed.kind() != BindFailure.Kind.NO_ADDRESS) {
        throw failed;
      }
      listeners.add(bindTcp(address, EVERY_IPV4_ADDRESS, address.port()));
    }
  }

  private static List<InetAddress> resolved(ListenAddress.Tcp address) throws IOException {
    try {
      return List.of(InetAddress.getAllByName(address.host()));
    } catch (UnknownHostException e) {
      throw new IOException("listening on " + address + ": no such host", e);
    }
  }

  /**
   * Binds one port at all of a host's addresses. Those that this machine doesn't have are left out,
   * as long as it has one: "localhost" names an IPv6 address also where IPv6 is off.
   */
  private List<Listener> bindAll(ListenAddress.Tcp address, List<InetAddress> hosts)
      throws IOException {
    List<Listener> bound = new ArrayList<>();
    int port = address.port();
    @Nullable BindFailure absent = null;
    try {
      for (InetAddress host : hosts) {
        try {
          Listener listener = bindTcp(address, host, port);
          bound.add(listener);
          port = ((InetSocketAddress) listener.address()).getPort();
        } catch (BindFailure failed) {
          if (failed.kind() != BindFailure.Kind.NO_ADDRESS) {
            throw failed;
          }
          absent = failed;
        }
      }
    } catch (IOException failed) {
      bound.forEach(listener -> listener.channel().close().awaitUninterruptibly());
      throw failed;
    }
    if (bound.isEmpty() && absent != null) {
      throw absent;
    }
    return bound;
  }

  private Listener bindTcp(ListenAddress.Tcp address, InetAddress host, int port)
      throws BindFailure {
    SocketProtocolFamily family =
        host instanceof Inet4Address ? SocketProtocolFamily.INET : SocketProtocolFamily.INET6;
    ServerBootstrap bootstrap =
        withTcpOptions(bootstrap(() -> transport.tcp(family)))
            .option(ChannelOption.SO_REUSEADDR, true);
    ChannelFuture bound = bootstrap.bind(new InetSocketAddress(host, port)).awaitUninterruptibly();
    Throwable cause = bound.cause();
    if (cause != null) {
      throw BindFailure.ofTcp(address, port, cause);
    }
    return new Listener(bound.channel(), bound.channel().localAddress(), null);
  }

  private void openUnix(ListenAddress.Unix address) throws IOException {
    if (!address.fits()) {
      throw new IOException(
          "listening on %s: the path of a unix socket may have %d bytes, and this one has %d"
              .formatted(address, ListenAddress.Unix.PATH_BYTES_MAX, address.pathBytes()));
    }
    Path path = address.path();
    if (Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      throw new IOException(
          "listening on " + path + ": the path exists; remove it or choose another");
    }
    ServerBootstrap bootstrap = withUnixOptions(bootstrap(transport::unix));
    ChannelFuture bound = bindPrivately(bootstrap, address);
    Throwable cause = bound.cause();
    if (cause != null) {
      throw BindFailure.ofUnix(path, cause);
    }
    Listener listener = new Listener(bound.channel(), UnixDomainSocketAddress.of(path), path);
    listeners.add(listener);
    permit(path, address.mode());
  }

  /**
   * Makes the socket with no more permissions than it shall have in the end, so that nobody can
   * connect in between whom its mode keeps out. The umask is the whole process's; it is never wider
   * than before, so a file that another thread makes at this moment is at worst too private.
   */
  private ChannelFuture bindPrivately(ServerBootstrap bootstrap, ListenAddress.Unix address) {
    int denied = ListenAddress.Unix.MODE_MAX & ~address.mode();
    int before = SystemCalls.umask(ListenAddress.Unix.MODE_MAX);
    try {
      SystemCalls.umask(before | denied);
      return bootstrap.bind(transport.unixAddress(address.path())).awaitUninterruptibly();
    } finally {
      SystemCalls.umask(before);
    }
  }

  /** Gives the permissions that the umask has held back. */
  private static void permit(Path path, int mode) throws IOException {
    Set<PosixFilePermission> wanted = permissions(mode);
    if (!Files.getPosixFilePermissions(path, LinkOption.NOFOLLOW_LINKS).equals(wanted)) {
      Files.setPosixFilePermissions(path, wanted);
    }
  }

  private static Set<PosixFilePermission> permissions(int mode) {
    StringBuilder text = new StringBuilder();
    for (int bit = 8; bit >= 0; bit--) {
      text.append((mode >> bit & 1) == 0 ? '-' : "xwr".charAt(bit % 3));
    }
    return PosixFilePermissions.fromString(text.toString());
  }

  /**
   * The channel is active from the beginning; it reads, that is accepts, only once its pipeline is
   * complete.
   */
  private void openInherited(ListenAddress.Inherited address) throws IOException {
    if (!transport.takesDescriptors()) {
      throw new IOException(
          "listening on %s: sockets can be handed over only where Netty's epoll library works"
              .formatted(address));
    }
    int error = SystemCalls.makeNonBlockingAndPrivate(address.fd());
    if (error < 0) {
      throw new IOException("listening on " + address + ": " + SystemCalls.reason(error));
    }
    ServerBootstrap bootstrap =
        bootstrap(() -> transport.inherited(address.fd(), address.unix()))
            .option(ChannelOption.AUTO_READ, false);
    ServerBootstrap configured =
        address.unix() ? withUnixOptions(bootstrap) : withTcpOptions(bootstrap);
    ChannelFuture registered = configured.register().awaitUninterruptibly();
    if (registered.cause() != null) {
      throw new IOException("listening on " + address + " failed", registered.cause());
    }
    listeners.add(new Listener(registered.channel(), address.address(), null));
    registered.channel().config().setAutoRead(true);
  }

  private ServerBootstrap bootstrap(Supplier<ServerChannel> channel) {
    return new ServerBootstrap()
        .group(loops)
        .channelFactory(channel::get)
        .childHandler(
            new ChannelInitializer<Channel>() {
              @Override
              protected void initChannel(Channel channel) {
                accept.accept(channel);
              }
            });
  }

  private ServerBootstrap withTcpOptions(ServerBootstrap bootstrap) {
    bootstrap
        .childOption(ChannelOption.ALLOW_HALF_CLOSURE, true)
        .childOption(ChannelOption.TCP_NODELAY, true)
        .childOption(ChannelOption.SO_KEEPALIVE, true);
    for (Map.Entry<ChannelOption<Integer>, Integer> option :
        transport.deadPeerOptions().entrySet()) {
      bootstrap.childOption(option.getKey(), option.getValue());
    }
    return bootstrap;
  }

  private ServerBootstrap withUnixOptions(ServerBootstrap bootstrap) {
    return transport.halfClosesUnix()
        ? bootstrap.childOption(ChannelOption.ALLOW_HALF_CLOSURE, true)
        : bootstrap;
  }
}
