package io.qnbd.image.refcount;

/**
 * Host clusters in a row that belong to whoever holds this: counted as used on disk, referred to by
 * nothing.
 *
 * @param first the first cluster's number
 * @param count how many, at least 1
 * @param freshFrom the number of completed syncs from which on the clusters read as zeroes even
 *     after a power cut; 0 for at once, {@link #NEVER} for clusters that hold something old
 * @param freed whether the clusters were a guest's before, in this session
 */
public record HostRun(long first, int count, long freshFrom, boolean freed) {
  public static final long NEVER = Long.MAX_VALUE;

  /** Clusters that hold something old and were not a guest's in this session. */
  public HostRun(long first, int count) {
    this(first, count, NEVER, false);
  }

  public HostRun {
    if (first < 0 || count <= 0) {
      throw new AssertionError("run of " + count + " clusters at " + first);
    }
  }

  public long end() {
    return first + count;
  }

  /** The first {@code clusters} of the run. */
  HostRun head(int clusters) {
    return new HostRun(first, clusters, freshFrom, freed);
  }

  /** What is left of the run without its first {@code clusters}. */
  HostRun tail(int clusters) {
    return new HostRun(first + clusters, count - clusters, freshFrom, freed);
  }

  /** Whether {@code next} goes on where this ends, and is of the same kind. */
  boolean joins(HostRun next) {
    return end() == next.first
        && freshFrom == next.freshFrom
        && freed == next.freed
        && (long) count + next.count <= Integer.MAX_VALUE;
  }

  /** This and {@code next}, which it {@link #joins}, as one. */
  HostRun join(HostRun next) {
    return new HostRun(first, count + next.count, freshFrom, freed);
  }
}
