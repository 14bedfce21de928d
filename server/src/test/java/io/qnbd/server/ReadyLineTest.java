package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.util.List;
import org.junit.jupiter.api.Test;

final class ReadyLineTest {
  private static final ReadyLine.Item DISK = new ReadyLine.Item("disk.qcow2", "10 GiB, qcow2");

  private static SocketAddress tcp(String host, int port) throws UnknownHostException {
    return new InetSocketAddress(InetAddress.getByName(host), port);
  }

  @Test
  void saysWhatAndWhereAndHowToAttach() throws UnknownHostException {
    assertEquals(
        "qnbd: serving disk.qcow2 (10 GiB, qcow2) at nbd://127.0.0.1:10809"
            + " - attach with: nbd-client 127.0.0.1 10809 /dev/nbd0",
        ReadyLine.of(List.of(DISK), List.of(tcp("127.0.0.1", 10809)), false));
  }

  @Test
  void saysHowToPickOneOfSeveral() throws UnknownHostException {
    assertEquals(
        "qnbd: serving a (10 GiB, qcow2), b (1 MiB, raw, read-only) at nbd://127.0.0.1:1/NAME"
            + " and nbd+unix:///NAME?socket=/run/q.sock"
            + " - attach with: nbd-client -N NAME 127.0.0.1 1 /dev/nbd0",
        ReadyLine.of(
            List.of(
                new ReadyLine.Item("a", "10 GiB, qcow2"),
                new ReadyLine.Item("b", "1 MiB, raw, read-only")),
            List.of(tcp("127.0.0.1", 1), UnixDomainSocketAddress.of("/run/q.sock")),
            false));
  }

  @Test
  void writesAnIpv6AddressInBracketsForTheUriOnly() throws UnknownHostException {
    assertEquals(
        "qnbd: serving disk.qcow2 (10 GiB, qcow2) at nbd://[::1]:7"
            + " - attach with: nbd-client ::1 7 /dev/nbd0",
        ReadyLine.of(List.of(DISK), List.of(tcp("::1", 7)), false));
  }

  @Test
  void attachesToTheLoopbackOfAServerOnAllAddresses() throws UnknownHostException {
    assertEquals(
        "qnbd: serving disk.qcow2 (10 GiB, qcow2) at nbd://0.0.0.0:7"
            + " - attach with: nbd-client 127.0.0.1 7 /dev/nbd0",
        ReadyLine.of(List.of(DISK), List.of(tcp("0.0.0.0", 7)), false));
  }

  @Test
  void encodesThePathOfAUnixSocket() {
    assertEquals(
        "qnbd: serving disk.qcow2 (10 GiB, qcow2) at nbd+unix:///?socket=/run/a%20b%26c%23.sock"
            + " - attach with: nbd-client -unix '/run/a b&c#.sock' /dev/nbd0",
        ReadyLine.of(
            List.of(DISK), List.of(UnixDomainSocketAddress.of("/run/a b&c#.sock")), false));
  }

  @Test
  void staysOneLineWhateverTheFilesAreCalled() throws UnknownHostException {
    String line =
        ReadyLine.of(
            List.of(new ReadyLine.Item("a\nb\u001b[31m", "1 MiB, raw")),
            List.of(tcp("127.0.0.1", 1)),
            false);
    assertFalse(line.chars().anyMatch(Character::isISOControl), line);
  }
}
