package io.qnbd.server.export;

/**
 * Whether writes to an image may be made on event loops. They may as long as the host takes the
 * bytes into its memory at once; when too many wait for the disk it holds up whoever writes, and it
 * can't be asked beforehand. So after a write that took long, event loops leave writes to the
 * workers for a while: a loop is held up at most once in that time.
 *
 * <p>Thread-safe.
 */
public final class WritePace {
  /**
   * A hundred times what a write into memory takes, and less than a reply may be late unnoticed.
   */
  static final long SLOW_NANOS = 500_000;

  /** The share of time that a loop may lose is this: a slow write in so long. */
  static final long PAUSE_NANOS = 100_000_000;

  private volatile boolean paused;
  private volatile long pausedAt;

  /**
   * Whether an event loop may write now.
   *
   * @param now {@link System#nanoTime}
   */
  public boolean allows(long now) {
    if (paused && now - pausedAt >= PAUSE_NANOS) {
      paused = false;
    }
    return !paused;
  }

  /** An event loop has written, which took from {@code begin} to {@code end}. */
  public void wrote(long begin, long end) {
    if (end - begin > SLOW_NANOS) {
      pausedAt = end;
      paused = true;
    }
  }
}
