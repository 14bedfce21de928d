package io.qnbd.image.random;

import java.util.List;
import java.util.SplittableRandom;

/**
 * Random numbers that follow from one seed. Not thread-safe: give each thread its own {@link
 * #split}.
 */
public final class SeededRandom {
  private final SplittableRandom source;

  public SeededRandom(long seed) {
    this(new SplittableRandom(seed));
  }

  private SeededRandom(SplittableRandom source) {
    this.source = source;
  }

  /** A generator whose numbers are independent of this one's from now on. */
  public SeededRandom split() {
    return new SeededRandom(source.split());
  }

  public long nextLong() {
    return source.nextLong();
  }

  /** A number in {@code [0, bound)}. */
  public int below(int bound) {
    return source.nextInt(bound);
  }

  /** A number in {@code [0, bound)}. */
  public long below(long bound) {
    return source.nextLong(bound);
  }

  /** A number in {@code [low, high]}. */
  public int between(int low, int high) {
    return source.nextInt(low, high + 1);
  }

  /** A number in {@code [low, high]}, each power of two as likely as any other: mostly small. */
  public long skewed(long low, long high) {
    int bits = 64 - Long.numberOfLeadingZeros(high - low + 1);
    long span = Math.min(high - low + 1, 1L << source.nextInt(bits));
    return low + source.nextLong(span);
  }

  /** True in {@code percent} of 100 cases. */
  public boolean chance(int percent) {
    return source.nextInt(100) < percent;
  }

  public <T> T pick(List<T> choices) {
    return choices.get(source.nextInt(choices.size()));
  }

  public byte[] bytes(int count) {
    byte[] bytes = new byte[count];
    source.nextBytes(bytes);
    return bytes;
  }
}
