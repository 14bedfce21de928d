package io.qnbd.image.format;

import java.util.Locale;

/** The three feature bitmaps of a header. */
public enum FeatureSet {
  /** An image with an unknown bit set can't be opened. */
  INCOMPATIBLE(0),
  /** Unknown bits can be ignored. */
  COMPATIBLE(1),
  /** Unknown bits are cleared before the first write. */
  AUTOCLEAR(2);

  private final byte number;

  FeatureSet(int number) {
    this.number = (byte) number;
  }

  /** The number in the name table. */
  byte number() {
    return number;
  }

  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }
}
