package io.qnbd.image;

/** How writes meet the host's page cache and what is durable when; the names are QEMU's. */
public enum CacheMode {
  /** Page cache; durable when flushed. */
  WRITEBACK(false, false, false),
  /** Page cache; every write is durable before it is acknowledged. */
  WRITETHROUGH(false, true, false),
  /** O_DIRECT; durable when flushed. */
  NONE(true, false, false),
  /** O_DIRECT; every write is durable before it is acknowledged. */
  DIRECTSYNC(true, true, false),
  /** Page cache; flushes are ignored. The image is lost if the host crashes. */
  UNSAFE(false, false, true);

  private final boolean direct;
  private final boolean commitsEveryWrite;
  private final boolean ignoresFlush;

  CacheMode(boolean direct, boolean commitsEveryWrite, boolean ignoresFlush) {
    this.direct = direct;
    this.commitsEveryWrite = commitsEveryWrite;
    this.ignoresFlush = ignoresFlush;
  }

  /** Whether the file is opened with O_DIRECT. */
  public boolean direct() {
    return direct;
  }

  /** Whether the server must commit before it acknowledges a write, trim or zero. */
  public boolean commitsEveryWrite() {
    return commitsEveryWrite;
  }

  /** Whether syncs are left out. */
  public boolean ignoresFlush() {
    return ignoresFlush;
  }
}
