package io.qnbd.image.metadata;

import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * The header's dirty bit (qcow2 specification, "incompatible_features"): while it is set, the
 * refcounts and the COPIED flags on disk may be wrong, and whoever opens the image for writing
 * makes them right first.
 *
 * <p>Set durably before the first change that relies on it, cleared after everything is right and
 * durable. Any number of reasons may hold it; a reason that failed keeps it set for good. Version 2
 * has no such bit: there nothing happens, and those who need it for more than tidiness must not
 * rely on it.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class DirtyBit {
  private final Storage file;
  private final long otherFeatures;
  private final boolean supported;
  private int holders;

  /**
   * Whether the bit is set in the file does not matter: it is not while an image is open here.
   *
   * @param incompatibleFeatures the bits that the header has
   */
  public DirtyBit(Storage file, long incompatibleFeatures, boolean supported) {
    this.file = file;
    this.otherFeatures = incompatibleFeatures & ~FeatureBits.DIRTY;
    this.supported = supported;
  }

  /** Holds the bit; it is durable when this returns. */
  public void set() throws IOException {
    if (holders == 0 && supported) {
      write(otherFeatures | FeatureBits.DIRTY);
      file.sync();
    }
    holders++;
  }

  /** Lets go of it; everything that relied on it must be durable. */
  public void clear() throws IOException {
    holders--;
    if (holders == 0 && supported) {
      write(otherFeatures);
      file.sync();
    }
  }

  private void write(long features) throws IOException {
    file.write(
        HeaderLayout.INCOMPATIBLE_AT, ByteBuffer.allocate(Long.BYTES).putLong(features).flip());
  }
}
