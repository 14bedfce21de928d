package io.qnbd.image.random;

/**
 * Runs a body once for each of a number of seeds and names the seed in the failure.
 *
 * <ul>
 *   <li>{@code -Dqnbd.seed=S} runs the seed S alone: the way to see a failure again.
 *   <li>{@code -Dqnbd.base=B} starts from another base, so that a soak sees new seeds.
 * </ul>
 */
public final class Seeds {
  private static final long BASE_DEFAULT = 20261122;

  private Seeds() {}

  /** A body that is given its seed. */
  @FunctionalInterface
  public interface Body {
    void run(long seed) throws Exception;
  }

  /** Runs {@code body} with {@code count} seeds, or with the one that the command line names. */
  public static void run(String name, int count, Body body) {
    Long only = Long.getLong("qnbd.seed");
    if (only != null) {
      runOne(name, only, body);
      return;
    }
    SeededRandom seeds = new SeededRandom(base() ^ name.hashCode());
    for (int i = 0; i < count; i++) {
      // Short seeds are easier to copy from a log.
      runOne(name, seeds.nextLong() >>> 32, body);
    }
  }

  /** What the system property says, or {@code fallback}. */
  public static int count(String property, int fallback) {
    return Integer.getInteger(property, fallback);
  }

  private static long base() {
    return Long.getLong("qnbd.base", BASE_DEFAULT);
  }

  // Everything a body throws, assertions too, has to carry the seed.
  private static void runOne(String name, long seed, Body body) {
    try {
      body.run(seed);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError(name + ": interrupted at seed=" + seed, e);
    } catch (Exception | AssertionError e) {
      throw new AssertionError(
          name + " failed, again with -Dqnbd.seed=" + seed + " (seed=" + seed + "): " + e, e);
    }
  }
}
