package io.qnbd.server.process;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.bootstrap.Bootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.epoll.EpollDomainDatagramChannel;
import io.netty.channel.epoll.EpollIoHandler;
import io.netty.channel.unix.DomainDatagramPacket;
import io.netty.channel.unix.DomainSocketAddress;
import io.qnbd.server.os.SystemCalls;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(60)
final class ServiceManagerTest {
  @TempDir private Path directory = Path.of("");

  /** Receives what a service manager would. */
  private static final class Receiver extends SimpleChannelInboundHandler<DomainDatagramPacket>
      implements AutoCloseable {
    private final EventLoopGroup loops =
        new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory());
    private final BlockingQueue<String> messages = new LinkedBlockingQueue<>();
    private final Channel channel;

    Receiver(String path) {
      channel =
          new Bootstrap()
              .group(loops)
              .channel(EpollDomainDatagramChannel.class)
              .handler(this)
              .bind(new DomainSocketAddress(path))
              .syncUninterruptibly()
              .channel();
    }

    @Override
    protected void channelRead0(ChannelHandlerContext context, DomainDatagramPacket packet) {
      messages.add(packet.content().toString(StandardCharsets.UTF_8));
    }

    List<String> next() throws InterruptedException {
      String message = messages.poll(20, TimeUnit.SECONDS);
      assertTrue(message != null, "no message");
      return message.lines().toList();
    }

    @Override
    public void close() {
      channel.close().awaitUninterruptibly();
      loops.shutdownGracefully(0, 10, TimeUnit.SECONDS).awaitUninterruptibly();
    }
  }

  private static ServiceManager named(String socket) {
    return ServiceManager.of(Map.of("NOTIFY_SOCKET", socket), 4711);
  }

  @Test
  void isToldOfReadyReloadAndStopAtAPath() throws Exception {
    String path = directory.resolve("notify").toString();
    try (Receiver receiver = new Receiver(path)) {
      ServiceManager manager = named(path);
      manager.ready("serving a\nand more");
      assertEquals(List.of("READY=1", "MAINPID=4711", "STATUS=serving a"), receiver.next());
      long before = SystemCalls.monotonicMicros();
      manager.reloading();
      List<String> reloading = receiver.next();
      assertEquals("RELOADING=1", reloading.getFirst());
      long at = Long.parseLong(reloading.get(1).substring("MONOTONIC_USEC=".length()));
      assertTrue(before <= at && at <= SystemCalls.monotonicMicros(), reloading::toString);
      manager.stopping();
      assertEquals(List.of("STOPPING=1"), receiver.next());
    }
  }

  @Test
  void isToldAtAnAbstractName() throws Exception {
    String name = "qnbd-test-" + ProcessHandle.current().pid() + "-" + System.nanoTime();
    try (Receiver receiver = new Receiver("\0" + name)) {
      named("@" + name).stopping();
      assertEquals(List.of("STOPPING=1"), receiver.next());
    }
  }

  @Test
  void longStatusIsCut() throws Exception {
    String path = directory.resolve("notify").toString();
    try (Receiver receiver = new Receiver(path)) {
      named(path).ready("x".repeat(100_000));
      assertEquals(
          "STATUS=" + "x".repeat(ServiceManager.STATUS_CHARS_MAX), receiver.next().getLast());
    }
  }

  @Test
  void failureToTellIsNoFailure() {
    named(directory.resolve("nobody").toString()).ready("serving");
    named("vsock:2:1").ready("serving");
    named("/" + "x".repeat(SystemCalls.UNIX_PATH_BYTES_MAX)).ready("serving");
    ServiceManager.of(Map.of(), 1).ready("serving");
  }
}
