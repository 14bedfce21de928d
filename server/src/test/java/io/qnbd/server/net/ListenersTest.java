package io.qnbd.server.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.channel.Channel;
import io.netty.channel.ChannelException;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.unix.Errors;
import io.qnbd.server.os.SystemCalls;
import java.io.IOException;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

@Timeout(60)
final class ListenersTest {
  /** Every machine has all of 127.0.0.0/8; 192.0.2.0/24 belongs to nobody (RFC 5737). */
  private static final InetAddress LOOPBACK = InetAddress.ofLiteral("127.0.0.1");

  private static final InetAddress SECOND_LOOPBACK = InetAddress.ofLiteral("127.0.0.2");
  private static final InetAddress NOBODYS = InetAddress.ofLiteral("192.0.2.1");

  private static final Pattern KEEPALIVE = Pattern.compile(" 02:(\\p{XDigit}{8}) ");

  @TempDir private Path directory = Path.of("");

  /** Listeners with an event loop of their own that close what they accept. */
  private static final class Rig implements AutoCloseable {
    final EventLoopGroup loops;
    final Listeners listeners;
    final BlockingQueue<Channel> accepted = new LinkedBlockingQueue<>();

    Rig(Transport transport) {
      loops =
          new MultiThreadIoEventLoopGroup(
              1, transport.handlers(new PollingStrategy.Lookouts(1, () -> 0)));
      listeners = new Listeners(loops, transport, accepted::add);
    }

    int port() {
      return address().getPort();
    }

    InetSocketAddress address() {
      return (InetSocketAddress) listeners.addresses().getFirst();
    }

    void mustAcceptAt(InetAddress host) throws IOException, InterruptedException {
      try (Socket _ = new Socket(host, port())) {
        Channel channel = accepted.poll(20, TimeUnit.SECONDS);
        assertTrue(channel != null, () -> "not accepted at " + host);
      }
    }

    @Override
    public void close() {
      listeners.close();
      loops.shutdownGracefully(0, 10, TimeUnit.SECONDS).awaitUninterruptibly();
    }
  }

  private static ListenAddress.Tcp anyPort(String host) {
    return new ListenAddress.Tcp(host, 0);
  }

  private static boolean opens(Rig rig, String host, int port) {
    try {
      rig.listeners.open(new ListenAddress.Tcp(host, port));
      return true;
    } catch (IOException _) {
      return false;
    }
  }

  private static String refusal(Rig rig, ListenAddress address) {
    IOException refused = assertThrows(IOException.class, () -> rig.listeners.open(address));
    return String.valueOf(refused.getMessage());
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void hostWithSeveralAddressesIsListenedOnAtEach(Transport transport) throws Exception {
    try (Rig rig = new Rig(transport)) {
      rig.listeners.openTcp(anyPort("twice"), List.of(LOOPBACK, SECOND_LOOPBACK));
      assertEquals(
          List.of(
              new InetSocketAddress(LOOPBACK, rig.port()),
              new InetSocketAddress(SECOND_LOOPBACK, rig.port())),
          rig.listeners.addresses());
      assertNotEquals(0, rig.port());
      rig.mustAcceptAt(LOOPBACK);
      rig.mustAcceptAt(SECOND_LOOPBACK);
    }
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void addressesThatTheMachineLacksAreLeftOutWhileOneIsThere(Transport transport) throws Exception {
    try (Rig rig = new Rig(transport)) {
      rig.listeners.openTcp(anyPort("half"), List.of(NOBODYS, LOOPBACK, NOBODYS));
      assertEquals(1, rig.listeners.addresses().size());
      rig.mustAcceptAt(LOOPBACK);
      IOException none =
          assertThrows(
              IOException.class,
              () -> rig.listeners.openTcp(anyPort("none"), List.of(NOBODYS, NOBODYS)));
      assertEquals("listening on none:0: this machine has no such address", none.getMessage());
    }
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void hostIsListenedOnAtAllItsAddressesOrNone(Transport transport) throws Exception {
    try (Rig taken = new Rig(transport);
        Rig rig = new Rig(transport)) {
      taken.listeners.open(anyPort("127.0.0.2"));
      ListenAddress.Tcp address = new ListenAddress.Tcp("twice", taken.port());
      IOException inUse =
          assertThrows(
              IOException.class,
              () -> rig.listeners.openTcp(address, List.of(LOOPBACK, SECOND_LOOPBACK)));
      assertEquals(
          "listening on twice:%d: the port is in use; choose another, or 0 for any that is free"
              .formatted(taken.port()),
          inUse.getMessage());
      assertEquals(List.of(), rig.listeners.addresses());
      // What was bound before the failure is free again; Java's own sockets take a moment.
      TestServer.eventually("it is free", () -> opens(rig, "127.0.0.1", taken.port()));
    }
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void allAddressesMeansThoseOfTheFamilyThatIsNamed(Transport transport) throws Exception {
    try (Rig everywhere = new Rig(transport);
        Rig ipv4 = new Rig(transport)) {
      everywhere.listeners.open(anyPort(""));
      assertTrue(everywhere.address().getAddress().isAnyLocalAddress());
      everywhere.mustAcceptAt(LOOPBACK);
      ipv4.listeners.open(anyPort("0.0.0.0"));
      assertInstanceOf(Inet4Address.class, ipv4.address().getAddress());
      ipv4.mustAcceptAt(SECOND_LOOPBACK);
    }
  }

  @ParameterizedTest
  @CsvSource({"EPOLL,600", "EPOLL,660", "EPOLL,666", "EPOLL,0", "NIO,600", "NIO,666"})
  void unixSocketHasExactlyItsModeAndTheUmaskIsAsBefore(Transport transport, String octal)
      throws Exception {
    int mode = Integer.parseInt(octal, 8);
    Path path = directory.resolve("s");
    int before = SystemCalls.umask(022);
    try (Rig rig = new Rig(transport)) {
      rig.listeners.open(new ListenAddress.Unix(path, mode));
      assertEquals(mode, (int) Files.getAttribute(path, "unix:mode") & 0777);
      assertEquals(UnixDomainSocketAddress.of(path), rig.listeners.addresses().getFirst());
      assertEquals(022, SystemCalls.umask(022));
    } finally {
      SystemCalls.umask(before);
    }
    assertFalse(Files.exists(path));
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void saysWhyAUnixSocketCannotBeHad(Transport transport) throws Exception {
    Path file = Files.createFile(directory.resolve("file"));
    Path missing = directory.resolve("missing");
    Path tooLong = directory.resolve("x".repeat(120));
    try (Rig rig = new Rig(transport)) {
      assertEquals(
          "listening on %s: the path exists; remove it or choose another".formatted(file),
          refusal(rig, new ListenAddress.Unix(file)));
      assertEquals(
          "listening on %s/s: there is no directory %s".formatted(missing, missing),
          refusal(rig, new ListenAddress.Unix(missing.resolve("s"))));
      assertEquals(
          "listening on %s/s: %s is no directory in which files can be made".formatted(file, file),
          refusal(rig, new ListenAddress.Unix(file.resolve("s"))));
      assertTrue(
          refusal(rig, new ListenAddress.Unix(tooLong))
              .startsWith(
                  "listening on %s: the path of a unix socket may have 106 bytes"
                      .formatted(tooLong)));
      assertEquals(List.of(), rig.listeners.addresses());
    }
  }

  @ParameterizedTest
  @EnumSource(Transport.class)
  void pathOfTheGreatestLengthCanBeUsed(Transport transport) throws Exception {
    int room = ListenAddress.Unix.PATH_BYTES_MAX - directory.toString().length() - 1;
    Path path = directory.resolve("x".repeat(room));
    try (Rig rig = new Rig(transport)) {
      rig.listeners.open(new ListenAddress.Unix(path));
      try (SocketChannel _ = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
        assertTrue(rig.accepted.poll(20, TimeUnit.SECONDS) != null);
      }
    }
  }

  @ParameterizedTest
  @CsvSource({
    "80, Permission denied, 'ports below 1024 are for root; choose one from 1024 on'",
    "10809, Permission denied, this machine's rules forbid it",
    "10809, Operation not permitted, this machine's rules forbid it",
    "1, Address family not supported by protocol, this machine has no such address",
    "1, Odd, it cannot be had (Odd)"
  })
  void putsWhatTheKernelSaysIntoWords(int port, String kernel, String words) {
    ListenAddress.Tcp address = new ListenAddress.Tcp("::1", port);
    assertEquals(
        "listening on [::1]:%d: %s".formatted(port, words),
        BindFailure.ofTcp(address, port, new IOException(kernel)).getMessage());
  }

  /** Without IPv6 its sockets cannot even be made: so Netty's epoll and Java say it. */
  @Test
  void familyThatTheMachineLacksIsAnAddressThatItLacks() {
    Epoll.ensureAvailability(); // Errors needs its native library
    for (RuntimeException cause :
        List.of(
            new ChannelException(new Errors.NativeIoException("newSocketStream", -97, false)),
            new ChannelException(new IOException("Address family not supported by protocol")),
            new UnsupportedOperationException("IPv6 not available"))) {
      assertEquals(BindFailure.Kind.NO_ADDRESS, BindFailure.ofTcp(anyPort("::1"), 0, cause).kind());
    }
  }

  @ParameterizedTest
  @CsvSource({
    "Permission denied, permission denied to make a file in /d",
    "Read-only file system, the file system of /d is read-only",
    "No space left on device, the file system of /d is full",
    "Operation not permitted, the file system of /d takes no sockets"
  })
  void putsWhatTheKernelSaysOfAPathIntoWords(String kernel, String words) {
    assertEquals(
        "listening on /d/s: " + words,
        BindFailure.ofUnix(Path.of("/d/s"), new IOException(kernel)).getMessage());
  }

  /**
   * The kernel's table of connections has a column {@code tr tm->when}: 02 for a keepalive that is
   * waited for, and hundredths of a second until it is sent, in hexadecimal. By default it would be
   * two hours.
   */
  @ParameterizedTest
  @EnumSource(Transport.class)
  void silentClientIsAskedWithinAMinuteWhetherItIsThere(Transport transport) throws Exception {
    try (Rig rig = new Rig(transport)) {
      rig.listeners.open(anyPort("127.0.0.1"));
      try (Socket client = new Socket(LOOPBACK, rig.port())) {
        assertTrue(rig.accepted.poll(20, TimeUnit.SECONDS) != null);
        String ends = "%04X 0100007F:%04X".formatted(rig.port(), client.getLocalPort());
        TestServer.eventually("a keepalive is due", () -> keepaliveDue(ends) >= 0);
        long due = keepaliveDue(ends);
        assertTrue(due <= Transport.KEEPALIVE_IDLE_SECONDS * 100L, "in hundredths: " + due);
      }
    }
  }

  /** Hundredths of a second until the connection's next keepalive; -1 if none is waited for. */
  private static long keepaliveDue(String ends) {
    try {
      return Files.readAllLines(Path.of("/proc/net/tcp")).stream()
          .filter(line -> line.contains(ends))
          .map(KEEPALIVE::matcher)
          .filter(Matcher::find)
          .mapToLong(timer -> Long.parseLong(timer.group(1), 16))
          .findFirst()
          .orElse(-1);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }
}
