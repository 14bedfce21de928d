package io.qnbd.server.export;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * The connections to an export, counted in all and for each client, so that neither is more than
 * the settings allow.
 *
 * <p>Invariant: a client is in {@code byClient} only while it has a connection.
 *
 * <p>Thread-safe; never blocks for longer than some arithmetic.
 */
public final class Seats {
  private final Map<Object, Integer> byClient = new HashMap<>();
  private int taken;
  private boolean closed;

  /**
   * Why a client would get no seat now, as a sentence for it; nothing when it would.
   *
   * @param client what its connections have in common: an address
   */
  public synchronized Optional<String> refusal(ExportSettings settings, Object client) {
    if (closed) {
      return Optional.of("the export is being removed");
    }
    if (settings.connectionsMax() > 0 && taken >= settings.connectionsMax()) {
      return Optional.of(
          "the export has %d connections, which is its limit".formatted(settings.connectionsMax()));
    }
    int ofClient = byClient.getOrDefault(client, 0);
    if (settings.connectionsPerClientMax() > 0 && ofClient >= settings.connectionsPerClientMax()) {
      return Optional.of(
          "this client has %d connections to the export, which is its limit"
              .formatted(settings.connectionsPerClientMax()));
    }
    return Optional.empty();
  }

  /** Takes a seat, which {@link #leave} gives back; false when there is none for this client. */
  public synchronized boolean take(ExportSettings settings, Object client) {
    if (refusal(settings, client).isPresent()) {
      return false;
    }
    taken++;
    byClient.merge(client, 1, Integer::sum);
    return true;
  }

  /** Gives back what {@link #take} took for this client. */
  public synchronized void leave(Object client) {
    Integer ofClient = byClient.get(client);
    if (ofClient == null) {
      throw new AssertionError("a client without a seat leaves: " + client);
    }
    taken--;
    notifyAll();
    if (ofClient == 1) {
      byClient.remove(client);
    } else {
      byClient.put(client, ofClient - 1);
    }
  }

  /** Gives no seat to anybody from now on. */
  synchronized void close() {
    closed = true;
  }

  synchronized boolean closed() {
    return closed;
  }

  /**
   * Waits until there is no connection.
   *
   * @return false when there still was one after {@code millis}, at least 1
   */
  public synchronized boolean awaitEmpty(long millis) throws InterruptedException {
    long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
    while (taken > 0) {
      long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
      if (left <= 0) {
        return false;
      }
      wait(left);
    }
    return true;
  }

  /** How many connections there are. */
  public synchronized int taken() {
    return taken;
  }
}
