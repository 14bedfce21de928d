package io.qnbd.image;

import java.util.Locale;

/** How an image's compressed clusters are compressed: one way for all of them. */
public enum CompressionType {
  /** Deflate, without zlib's header in spite of the name: what every reader of qcow2 knows. */
  ZLIB,

  /** Zstandard: faster, and denser where there is much to gain; QEMU reads it from 5.1 on. */
  ZSTD;

  /** The name as users and qemu-img write it. */
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }
}
