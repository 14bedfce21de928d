package io.qnbd.server.net;

import io.netty.util.internal.PlatformDependent;
import java.time.Duration;

/**
 * What a server spends on its clients.
 *
 * @param workerThreads threads that call images
 * @param eventLoopThreads threads that move bytes between sockets and memory
 * @param connectionsMax connections at a time; further ones are closed at once
 * @param handshakesMax those of them that have not chosen an export; beyond it the oldest is closed
 * @param handshakeDeadline after which a client that has not chosen an export is disconnected
 * @param stallDeadline after which a client is disconnected that takes no replies, or sends no
 *     data, while others wait for the memory that it holds; up to twice that long
 * @param requestsPerConnection requests whose reply has not reached the socket; beyond it the
 *     connection is not read
 * @param bytesPerConnection data of those requests, in the same way; one request alone may exceed
 *     it
 * @param bytesTotal data of the requests of all connections together, beyond 1 MiB that each has to
 *     itself
 * @param fastPath whether event loops do small requests themselves that need not wait, and look out
 *     for the next ones before they sleep
 */
public record ServerLimits(
    int workerThreads,
    int eventLoopThreads,
    int connectionsMax,
    int handshakesMax,
    Duration handshakeDeadline,
    Duration stallDeadline,
    int requestsPerConnection,
    long bytesPerConnection,
    long bytesTotal,
    boolean fastPath) {

  /** Two of the largest requests, so that one client cannot keep all others out. */
  private static final long BYTES_TOTAL_MIN = 128L << 20;

  public static final ServerLimits DEFAULT = defaults();

  public ServerLimits {
    if (workerThreads < 1
        || eventLoopThreads < 1
        || connectionsMax < 1
        || handshakesMax < 1
        || requestsPerConnection < 1
        || bytesPerConnection < 1
        || bytesTotal < 1
        || !handshakeDeadline.isPositive()
        || !stallDeadline.isPositive()) {
      throw new IllegalArgumentException("every limit must be at least 1");
    }
  }

  private static ServerLimits defaults() {
    int cores = Runtime.getRuntime().availableProcessors();
    return new ServerLimits(
        // A worker spends its time in the kernel, waiting for the disk as often as not.
        Math.max(4, 2 * cores),
        cores,
        // An idle one costs some 20 KiB, and a busy one OWN_BYTES of Connection beside the budget.
        4096,
        // More than any client or boot storm has under way in the millisecond that one takes.
        256,
        Duration.ofSeconds(10),
        Duration.ofSeconds(30),
        64,
        64L << 20,
        Math.max(BYTES_TOTAL_MIN, memoryBytesMax() / 4),
        true);
  }

  /** The launchers leave memory outside of the heap to the budget, whose measure is the heap. */
  private static long memoryBytesMax() {
    return Math.min(Runtime.getRuntime().maxMemory(), PlatformDependent.maxDirectMemory());
  }

  public ServerLimits withWorkerThreads(int value) {
    return new ServerLimits(
        value,
        eventLoopThreads,
        connectionsMax,
        handshakesMax,
        handshakeDeadline,
        stallDeadline,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        fastPath);
  }

  public ServerLimits withEventLoopThreads(int value) {
    return new ServerLimits(
        workerThreads,
        value,
        connectionsMax,
        handshakesMax,
        handshakeDeadline,
        stallDeadline,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        fastPath);
  }

  public ServerLimits withConnectionsMax(int value) {
    return new ServerLimits(
        workerThreads,
        eventLoopThreads,
        value,
        handshakesMax,
        handshakeDeadline,
        stallDeadline,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        fastPath);
  }

  public ServerLimits withHandshakesMax(int value) {
    return new ServerLimits(
        workerThreads,
        eventLoopThreads,
        connectionsMax,
        value,
        handshakeDeadline,
        stallDeadline,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        fastPath);
  }

  public ServerLimits withHandshakeDeadline(Duration value) {
    return new ServerLimits(
        workerThreads,
        eventLoopThreads,
        connectionsMax,
        handshakesMax,
        value,
        stallDeadline,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        fastPath);
  }

  public ServerLimits withStallDeadline(Duration value) {
    return new ServerLimits(
        workerThreads,
        eventLoopThreads,
        connectionsMax,
        handshakesMax,
        handshakeDeadline,
        value,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        fastPath);
  }

  public ServerLimits withInFlight(int requests, long bytes, long total) {
    return new ServerLimits(
        workerThreads,
        eventLoopThreads,
        connectionsMax,
        handshakesMax,
        handshakeDeadline,
        stallDeadline,
        requests,
        bytes,
        total,
        fastPath);
  }

  public ServerLimits withFastPath(boolean value) {
    return new ServerLimits(
        workerThreads,
        eventLoopThreads,
        connectionsMax,
        handshakesMax,
        handshakeDeadline,
        stallDeadline,
        requestsPerConnection,
        bytesPerConnection,
        bytesTotal,
        value);
  }
}
