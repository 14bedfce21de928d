package io.qnbd.server.export;

import java.util.ArrayList;
import java.util.List;

/**
 * Keeps the writes of a dead connection from landing over those of the one that replaced it.
 *
 * <p>A client that lost its connection sends again what was not answered. A write of the old
 * connection that is still in the image would then be applied later than the new one. So a
 * connection that dies with calls in the image stays counted here until they have returned, and a
 * new one enters transmission only when nothing is counted.
 *
 * <p>Thread-safe; callbacks run outside the lock, on the thread that cleared the fence or asked.
 */
public final class Fence {
  private final List<Runnable> waiting = new ArrayList<>();
  private int orphans;

  /** A connection died with calls in the image. */
  public synchronized void orphaned() {
    orphans++;
  }

  /** The last call of a dead connection returned. */
  public void cleared() {
    List<Runnable> ready;
    synchronized (this) {
      orphans--;
      if (orphans > 0) {
        return;
      }
      ready = List.copyOf(waiting);
      waiting.clear();
    }
    ready.forEach(Runnable::run);
  }

  /** Runs {@code enter} as soon as nothing is counted, which may be now. */
  public void whenClear(Runnable enter) {
    synchronized (this) {
      if (orphans > 0) {
        waiting.add(enter);
        return;
      }
    }
    enter.run();
  }
}
