package io.qnbd.image;

/** How much of a disk's space is taken when it is made or grows. */
public enum Preallocation {
  /** None: the host's space is taken as the guest writes. */
  OFF,
  /** The tables are complete; the data is a hole of the host's file (qcow2). */
  METADATA,
  /** The tables are complete, and the host has set space aside for the data. */
  FALLOC,
  /** The tables are complete, and the data is written as zeroes. */
  FULL
}
