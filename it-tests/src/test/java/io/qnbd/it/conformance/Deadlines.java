package io.qnbd.it.conformance;

import java.io.IOException;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/**
 * Clients that keep a server waiting. All begin when the tests do, each on a thread of its own, so
 * that the ten seconds which they are given pass while other cases run.
 *
 * <p>Thread-safe.
 */
final class Deadlines {
  static final String SILENT = "silent behind the greeting";
  static final String FLAGS_ONLY = "silent behind the flags";
  static final String HALF_HEADER = "silent within an option's header";
  static final String HALF_DATA = "silent within an option's data";
  static final String SLOW = "a byte every 300 ms";
  static final String CHATTY = "an option every 300 ms";
  static final String ENDLESS_OPTION = "an option of 4 GiB";
  static final String BEFORE_TLS = "silent behind STARTTLS";
  static final String IN_TLS = "silent behind the TLS handshake";

  /** The deadline is 10 s; a client that is sent away much earlier was not given it. */
  private static final long EARLIEST_NANOS = TimeUnit.SECONDS.toNanos(8);

  private static final long PAUSE_MILLIS = 300;
  private static final int WAIT_SECONDS = 150;

  private final Map<String, CompletableFuture<Long>> ends = new TreeMap<>();

  /** What a client does before it waits for the end. */
  private interface Start {
    void with(Peer peer) throws IOException;
  }

  static Deadlines begin(Bench bench) {
    Deadlines all = new Deadlines();
    byte[] flags = new Bytes().u32(3).array();
    byte[] list = Haggling.option(Nbd.OPT_LIST);
    byte[] go = Haggling.option(Nbd.OPT_GO, Haggling.details("n".repeat(4000)));
    byte[] startTls = Haggling.option(Nbd.OPT_STARTTLS);
    byte[] endless = new Bytes().u64(Nbd.OPTION_MAGIC).u32(Nbd.OPT_NOBODY_KNOWS).u32(-1).array();
    all.watch(SILENT, bench::plain, _ -> {});
    all.watch(FLAGS_ONLY, bench::plain, peer -> peer.send(flags));
    all.watch(
        HALF_HEADER,
        bench::plain,
        peer -> peer.send(new Bytes().raw(flags).raw(list, 0, 9).array()));
    all.watch(
        HALF_DATA, bench::plain, peer -> peer.send(new Bytes().raw(flags).raw(go, 0, 100).array()));
    all.watch(
        SLOW,
        bench::plain,
        peer -> {
          peer.send(flags);
          for (byte each : go) {
            pause();
            peer.send(each);
          }
        });
    all.watch(
        CHATTY,
        bench::plain,
        peer -> {
          peer.send(flags);
          for (int count = 0; count < 1000; count++) {
            pause();
            peer.send(list);
          }
        });
    all.watch(
        ENDLESS_OPTION,
        bench::plain,
        peer -> peer.send(new Bytes().raw(flags).raw(endless).array()));
    all.watch(
        BEFORE_TLS,
        bench::tlsRequired,
        peer -> peer.send(new Bytes().raw(flags).raw(startTls).array()));
    all.watch(
        IN_TLS,
        bench::tlsRequired,
        peer -> {
          var _ = Haggling.greeting(peer);
          peer.send(new Bytes().raw(flags).raw(startTls).array());
          var _ = OptionReply.read(peer, Nbd.OPT_STARTTLS);
          peer.startTls(bench.tls());
        });
    return all;
  }

  private void watch(String name, Supplier<Endpoint> server, Start start) {
    CompletableFuture<Long> end = new CompletableFuture<>();
    ends.put(name, end);
    Thread.ofVirtual()
        .start(() -> {
          try {
            end.complete(lifeNanos(server.get(), start));
          } catch (Throwable e) {
            end.completeExceptionally(e);
          }
        });
  }

  private static long lifeNanos(Endpoint server, Start start) throws IOException {
    long begin = System.nanoTime();
    try (Peer peer = Peer.connect(server.port())) {
      try {
        start.with(peer);
      } catch (java.net.SocketException e) {
        return System.nanoTime() - begin; // closed while this side was talking
      }
      var _ = peer.countToEnd();
      return System.nanoTime() - begin;
    }
  }

  private static void pause() {
    try {
      Thread.sleep(PAUSE_MILLIS); // what makes this client slow
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Waits until the server has sent the client away; returns how long that took. */
  long mustHaveEnded(String name) throws Exception {
    CompletableFuture<Long> end = ends.get(name);
    if (end == null) {
      throw new AssertionError("no client is " + name);
    }
    try {
      return end.get(WAIT_SECONDS, TimeUnit.SECONDS);
    } catch (TimeoutException e) {
      throw new AssertionError("still connected: " + name, e);
    } catch (ExecutionException e) {
      throw new AssertionError(name + ": " + e.getCause(), e);
    }
  }

  /** As {@link #mustHaveEnded}, and not before the client had the time that is its due. */
  void mustHaveEndedInTime(String name) throws Exception {
    long nanos = mustHaveEnded(name);
    Check.that(nanos >= EARLIEST_NANOS, "ended after %d ms", nanos / 1_000_000);
  }
}
