package io.qnbd.image.io;

import java.util.EnumSet;
import java.util.Set;

/** What can be asked of a {@link Storage}: one constant for each of its methods that does I/O. */
public enum Operation {
  READ,
  WRITE,
  SYNC,
  SET_LENGTH,
  PUNCH_HOLE,
  ALLOCATE,
  ZERO_RANGE,
  PREFETCH;

  /** Whether it changes the file or makes changes durable: what a power cut can fall upon. */
  public boolean mutates() {
    return this != READ && this != PREFETCH;
  }

  /** All operations for which {@link #mutates} holds. */
  public static Set<Operation> mutating() {
    return EnumSet.of(WRITE, SYNC, SET_LENGTH, PUNCH_HOLE, ALLOCATE, ZERO_RANGE);
  }
}
