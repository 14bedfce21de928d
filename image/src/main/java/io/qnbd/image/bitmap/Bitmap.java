package io.qnbd.image.bitmap;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.format.BitmapEntry;
import org.jspecify.annotations.Nullable;

/**
 * One persistent bitmap of an open image.
 *
 * <p>Which states there are, and what the entry in the file says in each:
 *
 * <pre>
 *   at rest    what the file has is what the bitmap says    in_use clear
 *   changing   what it says is {@link Content}              in_use set, durably, before the first
 *                                                           difference to the file
 *   unusable   not written to the end, or not understood    in_use or extra data, as found
 *   gone       removed                                      none
 *
 *   at rest -- begin(), a change --> changing -- store, close --> at rest
 *   any state -- remove --> gone
 * </pre>
 *
 * <p>Owner: {@link #entry} and where it is, the image's metadata lock; the rest changes only under
 * the lock of those who change bitmaps, and is read by anybody.
 */
final class Bitmap {
  /**
   * What a bitmap says: a bit is set if it is in one of the two.
   *
   * @param stored what the file has; null for nothing
   * @param allOnes whether all bits are set, whatever the file has
   * @param dirty what was set since
   */
  record Content(@Nullable StoredBits stored, boolean allOnes, DirtyPages dirty) {}

  /** As the directory in the file has it. */
  BitmapEntry entry;

  /** Where the entry is in the file. */
  long entryAt;

  /** Whether changes of the disk are recorded. */
  private volatile boolean enabled;

  /** Null while the bitmap is unusable or gone. Replaced as a whole. */
  private volatile @Nullable Content content;

  Bitmap(BitmapEntry entry, long entryAt) {
    this.entry = entry;
    this.entryAt = entryAt;
    this.enabled = entry.auto();
  }

  @Nullable String name() {
    return entry.name();
  }

  int granularityBits() {
    return entry.granularityBits();
  }

  boolean enabled() {
    return enabled;
  }

  void enable(boolean value) {
    enabled = value;
  }

  @Nullable Content content() {
    return content;
  }

  /** Whether what it says is still that very thing. */
  @SuppressWarnings("ReferenceEquality") // another one may say the same with other clusters
  boolean says(Content value) {
    return content == value;
  }

  void content(@Nullable Content value) {
    content = value;
  }

  /** Whether it can be believed. */
  boolean usable() {
    return content != null;
  }

  /** Its flags when it is at rest. */
  int restingFlags() {
    int others = entry.flags() & ~(BitmapEntry.IN_USE | BitmapEntry.AUTO);
    return others | (enabled ? BitmapEntry.AUTO : 0);
  }

  BitmapInfo info(String named) {
    return new BitmapInfo(named, entry.granularityBytes(), enabled, usable());
  }
}
