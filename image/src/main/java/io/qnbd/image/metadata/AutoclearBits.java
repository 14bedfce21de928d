package io.qnbd.image.metadata;

import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * The header's autoclear bits (qcow2 specification, "autoclear_features"): each says that a part of
 * the image is consistent, until somebody changes the image who doesn't know that part.
 *
 * <p>Version 2 has none: there they are all clear, and nothing sets one.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class AutoclearBits {
  private final Storage file;
  private final long alwaysKept;
  private long bits;

  /**
   * The bits of an image.
   *
   * @param bits those that the header has
   * @param alwaysKept those of what is consistent after every change
   */
  public AutoclearBits(Storage file, long bits, long alwaysKept) {
    this.file = file;
    this.bits = bits;
    this.alwaysKept = alwaysKept;
  }

  /** Clears all but {@code kept}, and but those that are always kept; durable when it returns. */
  public void keepOnly(long kept) throws IOException {
    long rest = bits & (kept | alwaysKept);
    if (rest != bits) {
      write(rest);
    }
  }

  /** Sets bits; durable when this returns. Version 3 only. */
  public void set(long added) throws IOException {
    if ((bits & added) != added) {
      write(bits | added);
    }
  }

  private void write(long value) throws IOException {
    file.write(HeaderLayout.AUTOCLEAR_AT, ByteBuffer.allocate(Long.BYTES).putLong(value).flip());
    file.sync();
    bits = value;
  }
}
