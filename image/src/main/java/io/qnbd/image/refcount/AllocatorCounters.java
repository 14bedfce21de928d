package io.qnbd.image.refcount;

/** What the refcount layer did, in clusters. Owner: the image's metadata lock. */
public final class AllocatorCounters {
  long allocated;
  long reserved;
  long cancelled;
  long reused;
  long returned;
  long batched;
  long coalesced;
  long applied;

  /** Handed out and referred to. */
  public long allocated() {
    return allocated;
  }

  /** Counted as used ahead of need. */
  public long reserved() {
    return reserved;
  }

  /** Freed and put back into the pool, their count of 1 untouched: REF- met REF+. */
  public long cancelled() {
    return cancelled;
  }

  /** Handed out after having been freed in this session. */
  public long reused() {
    return reused;
  }

  /** Written as free. */
  public long returned() {
    return returned;
  }

  /** References dropped by guests, waiting for a commit or applied. */
  public long batched() {
    return batched;
  }

  /** References that met another to the same cluster in their batch. */
  public long coalesced() {
    return coalesced;
  }

  /** References whose decrement was applied. */
  public long applied() {
    return applied;
  }
}
