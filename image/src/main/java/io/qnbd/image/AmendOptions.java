package io.qnbd.image;

import org.jspecify.annotations.Nullable;

/**
 * What of an image's format is to change; null leaves a thing as it is.
 *
 * @param version of the format, 2 or 3
 * @param lazyRefcounts whether a writer may put off reference counts; version 3 only
 * @param refcountBits how wide a reference count is: a power of two, 1 to 64; 16 in version 2
 * @param keys which passphrase comes or goes
 */
public record AmendOptions(
    @Nullable Integer version,
    @Nullable Boolean lazyRefcounts,
    @Nullable Integer refcountBits,
    @Nullable KeyChange keys) {
  /** A change of the format alone. */
  public AmendOptions(
      @Nullable Integer version, @Nullable Boolean lazyRefcounts, @Nullable Integer refcountBits) {
    this(version, lazyRefcounts, refcountBits, null);
  }

  public AmendOptions {
    if (version != null && version != 2 && version != 3) {
      throw new IllegalArgumentException("version is " + version + ", expected 2 or 3");
    }
    if (refcountBits != null
        && (Integer.bitCount(refcountBits) != 1 || refcountBits < 1 || refcountBits > 64)) {
      throw new IllegalArgumentException(
          "refcount bits are " + refcountBits + ", expected a power of two from 1 to 64");
    }
  }
}
