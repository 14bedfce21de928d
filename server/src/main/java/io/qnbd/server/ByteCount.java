package io.qnbd.server;

import io.qnbd.server.config.Sizes;

/** A size in bytes that was typed with or without a unit; see {@link Sizes}. */
record ByteCount(long bytes) {
  static ByteCount parse(String text) {
    return new ByteCount(Sizes.parse(text));
  }
}
