package io.qnbd.server.net;

import org.jspecify.annotations.Nullable;

/**
 * How many clients use an export at this moment, and who wants to know when the last has gone.
 *
 * <pre>
 * UNUSED --enter--> IN USE --the last leave--> IDLE: the action runs
 *                     ^                         |
 *                     +----------enter----------+
 * </pre>
 *
 * <p>Thread-safe; the action runs on the thread of the last {@code leave}.
 */
final class ClientCount {
  private int count;
  private boolean used;
  private @Nullable Runnable onIdle;

  synchronized void enter() {
    used = true;
    count++;
  }

  void leave() {
    Runnable action = left();
    if (action != null) {
      action.run();
    }
  }

  private synchronized @Nullable Runnable left() {
    count--;
    return count == 0 ? onIdle : null;
  }

  /**
   * Runs {@code action} each time that the last client has gone; at once, too, if there were some
   * and they have gone already.
   */
  void onIdle(Runnable action) {
    boolean idle;
    synchronized (this) {
      onIdle = action;
      idle = used && count == 0;
    }
    if (idle) {
      action.run();
    }
  }
}
