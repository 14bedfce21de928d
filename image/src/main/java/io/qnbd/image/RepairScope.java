package io.qnbd.image;

/** What a repair of an image is to mend. */
public enum RepairScope {
  /** Clusters that are counted as used but referenced by nothing. */
  LEAKS,
  /** Everything that can be mended. */
  ALL
}
