package io.qnbd.server.process;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The sockets themselves are handed over in LifecycleIT, to a process of its own. */
final class SocketActivationTest {
  private static final long PID = 4711;

  private static byte[] sockaddr(int family, byte[] rest) {
    return ByteBuffer.allocate(2 + rest.length)
        .order(ByteOrder.nativeOrder())
        .putShort((short) family)
        .put(rest)
        .array();
  }

  @Test
  void socketsForAnotherProcessAreIgnored() throws IOException {
    for (Map<String, String> environment :
        List.of(
            Map.<String, String>of(),
            Map.of("LISTEN_FDS", "1"),
            Map.of("LISTEN_FDS", "1", "LISTEN_PID", "471"),
            Map.of("LISTEN_FDS", "nonsense", "LISTEN_PID", "1"),
            Map.of("LISTEN_PID", "4711"),
            Map.of("LISTEN_FDS", "0", "LISTEN_PID", "4711"))) {
      assertEquals(List.of(), SocketActivation.sockets(environment, PID));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "-1", "one", "65", "99999999999"})
  void numberThatIsNoneIsRefused(String number) {
    IOException refused =
        assertThrows(
            IOException.class,
            () ->
                SocketActivation.sockets(Map.of("LISTEN_FDS", number, "LISTEN_PID", "4711"), PID));
    assertEquals(
        "socket activation: LISTEN_FDS is '%s', expected a number from 0 to 64".formatted(number),
        refused.getMessage());
  }

  @Test
  void readsAddressesOfAllFamilies() throws IOException {
    byte[] ipv4 = {0x2a, 0x39, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    assertEquals(
        new InetSocketAddress(InetAddress.ofLiteral("127.0.0.1"), 10809),
        SocketActivation.address(sockaddr(2, ipv4), "it"));
    byte[] ipv6 = new byte[26];
    ipv6[0] = (byte) 0xff;
    ipv6[1] = (byte) 0xff;
    ipv6[21] = 1;
    assertEquals(
        new InetSocketAddress(InetAddress.ofLiteral("::1"), 65535),
        SocketActivation.address(sockaddr(10, ipv6), "it"));
    byte[] unix = "/run/q.sock\0".getBytes(StandardCharsets.UTF_8);
    assertEquals(
        UnixDomainSocketAddress.of("/run/q.sock"),
        SocketActivation.address(sockaddr(1, unix), "it"));
  }

  @Test
  void unixSocketWithoutAPathIsRefused() {
    for (String path : List.of("", "\0abstract")) {
      IOException refused =
          assertThrows(
              IOException.class,
              () ->
                  SocketActivation.address(
                      sockaddr(1, path.getBytes(StandardCharsets.UTF_8)), "it"));
      assertTrue(
          String.valueOf(refused.getMessage()).startsWith("it is a unix socket without a path"));
    }
  }
}
