package io.qnbd.image.crypt;

import java.io.IOException;

/** How long deriving keys may take in all; an image says how much work it is. */
public interface KeyTime {
  /** Throws when the time is over; called every few milliseconds. */
  void check() throws IOException;
}
