package io.qnbd.server.net;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
final class ClientCountTest {
  private final ClientCount clients = new ClientCount();
  private final AtomicInteger idle = new AtomicInteger();

  @Test
  void saysWhenTheLastOfSeveralHasGone() {
    clients.onIdle(idle::incrementAndGet);
    clients.enter();
    clients.enter();
    clients.leave();
    assertEquals(0, idle.get());
    clients.leave();
    assertEquals(1, idle.get());
  }

  @Test
  void nobodyHasGoneBeforeTheFirstCame() {
    clients.onIdle(idle::incrementAndGet);
    assertEquals(0, idle.get());
  }

  @Test
  void whoAsksLateIsTold() {
    clients.enter();
    clients.leave();
    clients.onIdle(idle::incrementAndGet);
    assertEquals(1, idle.get());
  }

  @Test
  void whoAsksWhileThereIsOneIsToldLater() {
    clients.enter();
    clients.onIdle(idle::incrementAndGet);
    assertEquals(0, idle.get());
    clients.leave();
    assertEquals(1, idle.get());
  }

  /** A client that goes with DISC, and one that vanishes; the one that only looks is no client. */
  @Test
  void serverIsIdleWhenTheLastClientThatChoseAnExportIsGone() throws Exception {
    try (TestServer server = new TestServer()) {
      CountDownLatch gone = new CountDownLatch(1);
      server.server.onIdle(gone::countDown);
      try (RawClient onlyLooks = server.connect().greet(3)) {
        onlyLooks.option(6, RawClient.infoData("disk"));
        while (onlyLooks.optionReply().type() != RawClient.ACK) {
          // The export's size and the like.
        }
      }
      RawClient first = server.simple();
      RawClient second = server.structured();
      // An answer proves that the second is counted: the reply to GO leaves just before that.
      second.send(RawClient.request(0, RawClient.FLUSH, 1, 0, 0));
      second.simpleReply();
      first.send(RawClient.request(0, RawClient.DISC, 1, 0, 0));
      assertTrue(first.closedByServer());
      first.close();
      // The second is there: its request is answered.
      second.send(RawClient.request(0, RawClient.FLUSH, 1, 0, 0));
      second.simpleReply();
      assertEquals(1, gone.getCount());
      second.close();
      assertTrue(gone.await(20, TimeUnit.SECONDS));
    }
  }
}
