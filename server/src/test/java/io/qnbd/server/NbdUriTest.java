package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import org.junit.jupiter.api.Test;

final class NbdUriTest {
  private static final InetSocketAddress IPV4 =
      new InetSocketAddress(InetAddress.ofLiteral("127.0.0.1"), 10809);
  private static final InetSocketAddress IPV6 =
      new InetSocketAddress(InetAddress.ofLiteral("::1"), 1);
  private static final UnixDomainSocketAddress UNIX = UnixDomainSocketAddress.of("/run/a b&c#.s");

  @Test
  void namesHostPortAndExport() {
    assertEquals("nbd://127.0.0.1:10809", NbdUri.of(IPV4, "", false));
    assertEquals("nbds://127.0.0.1:10809/data", NbdUri.of(IPV4, "data", true));
    assertEquals("nbd://[::1]:1/a/b", NbdUri.of(IPV6, "a/b", false));
  }

  @Test
  void encodesWhatWouldEndTheNameOrThePath() {
    assertEquals(
        "nbd+unix:///%C3%BC%3F%25%20%23?socket=/run/a%20b%26c%23.s",
        NbdUri.of(UNIX, "ü?% #", false));
    assertEquals("nbds+unix:///?socket=/run/a%20b%26c%23.s", NbdUri.of(UNIX, "", true));
  }
}
