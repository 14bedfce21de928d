package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.qnbd.server.config.TcpAddress;
import io.qnbd.server.net.ListenAddress;
import org.junit.jupiter.api.Test;

final class LifecycleTest {
  @Test
  void listensOnTheLoopbackUnlessTheEnvironmentSaysWhere() {
    assertEquals(TcpAddress.LOOPBACK, Lifecycle.defaultAddress(null));
    assertEquals(TcpAddress.LOOPBACK, Lifecycle.defaultAddress(""));
    assertEquals(
        new ListenAddress.Tcp("0.0.0.0", 10900), Lifecycle.defaultAddress("0.0.0.0:10900"));
  }

  @Test
  void namesTheVariableThatHoldsNoAddress() {
    UsageException refused =
        assertThrows(UsageException.class, () -> Lifecycle.defaultAddress("here:port"));
    assertEquals(
        "QNBD_LISTEN in the environment is no address: the port in 'here:port' is not a number from"
            + " 0 to 65535",
        refused.getMessage());
  }
}
