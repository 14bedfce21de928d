package io.qnbd.image.bitmap;

import io.qnbd.image.DiskImage;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.bitmap.Bitmap.Content;
import io.qnbd.image.bitmap.BitmapDirectory.Change;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Changes the persistent bitmaps of an open image.
 *
 * <p>Each change of what a bitmap says begins with its in_use flag in the file and, unless the
 * bitmap goes on recording, ends with the flag cleared after all is stored. So a power cut in the
 * middle leaves a bitmap that nobody believes, never one that misses something.
 *
 * <p>Not thread-safe: one operation at a time. None of the caller's locks but that one is held.
 */
public final class BitmapOperations {
  /** QEMU's, from 4 KiB to 64 KiB: the cluster size where it lies between. */
  private static final int GRANULARITY_DEFAULT_MIN = 4096;

  private static final int GRANULARITY_DEFAULT_MAX = 65536;

  /** Runs something while no request is between the record of a change and its end. */
  @FunctionalInterface
  public interface Freeze {
    void whileFrozen(Runnable action);
  }

  private final DirtyBitmaps bitmaps;
  private final BitmapDirectory directory;
  private final BitmapWriter writer;
  private final ReentrantLock metadata;
  private final Freeze freeze;
  private final boolean supported;

  /**
   * Changes of {@code bitmaps}.
   *
   * @param supported whether the format has bitmaps: version 3 on
   */
  public BitmapOperations(
      DirtyBitmaps bitmaps, Allocator allocator, Freeze freeze, boolean supported) {
    this.bitmaps = bitmaps;
    this.directory = bitmaps.directory();
    this.metadata = bitmaps.metadata();
    this.writer = new BitmapWriter(bitmaps.file(), bitmaps.geometry(), metadata, allocator);
    this.freeze = freeze;
    this.supported = supported;
  }

  private interface Step {
    void run() throws IOException;
  }

  private void locked(Step step) throws IOException {
    metadata.lock();
    try {
      step.run();
    } finally {
      metadata.unlock();
    }
  }

  // ---- one bitmap

  /**
   * Adds a bitmap of which no bit is set.
   *
   * @param granularityBytes 0 for the default
   * @param replaced an enabled bitmap that stops recording at the moment at which this one, enabled
   *     then too, begins; or null
   */
  public void add(String name, long granularityBytes, boolean enabled, @Nullable String replaced)
      throws IOException {
    Bitmap old = replaced == null ? null : bitmaps.requireUsable(replaced);
    if (old != null && !old.enabled()) {
      throw new IOException(
          "%s: bitmap %s does not record, so nothing can take over from it"
              .formatted(bitmaps.file().name(), replaced));
    }
    BitmapEntry shape = newEntry(name, granularityBytes);
    locked(() -> {
      directory.requireRoom();
      int flags = enabled ? BitmapEntry.AUTO : 0;
      if (enabled && bitmaps.begun()) {
        flags |= BitmapEntry.IN_USE;
      }
      HostRun run = writer.writeTable(new long[0], shape.tableEntries());
      long table = bitmaps.geometry().offsetOf(run.first());
      BitmapEntry entry = shape.withTable(table, shape.tableEntries()).withFlags(flags);
      Bitmap bitmap = new Bitmap(entry, 0);
      List<Change> changes = unchanged();
      changes.add(new Change(bitmap, entry));
      replace(changes, List.of(run));
      bitmap.content(bitmaps.stored(bitmap));
    });
    freeze.whileFrozen(() -> {
      if (old != null) {
        old.enable(false);
      }
      metadata.lock();
      try {
        bitmaps.publish();
      } finally {
        metadata.unlock();
      }
    });
    if (old != null) {
      settle(List.of(old));
    }
  }

  /** Replaces the directory, or gives back the clusters that the changes were to name. */
  private void replace(List<Change> changes, List<HostRun> taken) throws IOException {
    boolean done = false;
    try {
      directory.replace(changes);
      done = true;
    } finally {
      if (!done) {
        writer.giveBack(taken);
      }
    }
  }

  private List<Change> unchanged() {
    List<Change> changes = new ArrayList<>();
    directory.bitmaps().forEach(bitmap -> changes.add(new Change(bitmap, bitmap.entry)));
    return changes;
  }

  /** The entry of a new bitmap, as far as it is known before it has a place; checks what it can. */
  private BitmapEntry newEntry(String name, long granularityBytes) throws IOException {
    String file = bitmaps.file().name();
    if (!supported) {
      throw new UnsupportedImageException(
          file + ": version 2 of the format has no bitmaps: convert the image to version 3");
    }
    int nameBytes = name.getBytes(StandardCharsets.UTF_8).length;
    if (nameBytes == 0 || nameBytes > BitmapEntry.NAME_BYTES_MAX || name.indexOf(0) >= 0) {
      throw new IOException(
          "%s: a bitmap's name has 1 to %d bytes, none of them zero"
              .formatted(file, BitmapEntry.NAME_BYTES_MAX));
    }
    if (bitmaps.find(name) != null) {
      throw new IOException(file + ": there is a bitmap named " + name + " already");
    }
    if (bitmaps.all().size() >= BitmapsExtension.BITMAPS_MAX) {
      throw new IOException(file + ": has " + BitmapsExtension.BITMAPS_MAX + " bitmaps already");
    }
    int clusterBytes = bitmaps.geometry().clusterBytes();
    long granularity =
        granularityBytes != 0
            ? granularityBytes
            : Math.clamp(clusterBytes, GRANULARITY_DEFAULT_MIN, GRANULARITY_DEFAULT_MAX);
    int bits = Long.numberOfTrailingZeros(granularity);
    if (Long.bitCount(granularity) != 1
        || bits < BitmapEntry.GRANULARITY_BITS_MIN
        || bits > BitmapEntry.GRANULARITY_BITS_MAX) {
      throw new IOException(
          "%s: a bitmap's granularity is a power of two from 512 bytes to 2 GiB, not %d bytes"
              .formatted(file, granularity));
    }
    long entries = BitmapEntry.tableEntriesFor(bitmaps.virtualBytes(), bits, clusterBytes);
    if (entries == 0) {
      throw new IOException(file + ": a disk of 0 bytes has no bitmaps");
    }
    if (!BitmapEntry.dataFits(entries, clusterBytes)) {
      throw new IOException(
          "%s: a bitmap of the disk with a granularity of %d bytes is too large: take a coarser one"
              .formatted(file, granularity));
    }
    return new BitmapEntry(0, (int) entries, 0, true, bits, name);
  }

  /** Removes a bitmap, also one that can't be believed. */
  public void remove(String name) throws IOException {
    Bitmap bitmap = require(name);
    locked(() -> {
      List<Change> changes = unchanged();
      changes.removeIf(change -> change.bitmap() == bitmap);
      directory.replace(changes);
      bitmaps.publish();
      bitmap.content(null); // before its clusters can come to hold something else
      writer.release(bitmap.entry, 0);
    });
  }

  private Bitmap require(String name) throws IOException {
    Bitmap bitmap = bitmaps.find(name);
    if (bitmap == null) {
      throw new IOException(bitmaps.file().name() + ": there is no bitmap named " + name);
    }
    return bitmap;
  }

  private Bitmap requireUsable(String name) throws IOException {
    Bitmap bitmap = require(name);
    if (!bitmap.usable()) {
      throw new IOException(
          "%s: bitmap %s was not written to its end, so it can't be believed: it can be removed"
              .formatted(bitmaps.file().name(), name));
    }
    return bitmap;
  }

  /** From now on changes of the disk are recorded in the bitmap. */
  public void enable(String name) throws IOException {
    Bitmap bitmap = requireUsable(name);
    if (bitmap.enabled()) {
      return;
    }
    locked(() -> {
      // In use at once: a failure of this write must not leave a bitmap that seems to record.
      directory.setFlags(bitmap, bitmap.entry.flags() | BitmapEntry.AUTO | BitmapEntry.IN_USE);
      bitmaps.file().sync();
      bitmap.enable(true);
      bitmaps.publishRecording();
    });
  }

  /** From now on changes of the disk are not recorded in the bitmap. */
  public void disable(String name) throws IOException {
    Bitmap bitmap = requireUsable(name);
    if (!bitmap.enabled()) {
      return;
    }
    freeze.whileFrozen(() -> {
      bitmap.enable(false);
      bitmaps.publishRecording();
    });
    settle(List.of(bitmap));
  }

  /** Clears all bits. */
  public void clear(String name) throws IOException {
    Bitmap bitmap = requireUsable(name);
    markInUse(List.of(bitmap));
    freeze.whileFrozen(() -> {
      bitmap.content(bitmaps.cleared(bitmap));
      bitmaps.publishRecording();
    });
    settleUnlessEnabled(List.of(bitmap));
  }

  /**
   * Sets in a bitmap all that is set in another one.
   *
   * @param source the image that has it; of the same size
   */
  public void merge(String target, DiskImage source, String sourceName) throws IOException {
    Bitmap bitmap = requireUsable(target);
    if (source.virtualBytes() != bitmaps.virtualBytes()) {
      throw new IOException(
          "%s: bitmap %s is of a disk of %d bytes, this one has %d"
              .formatted(
                  bitmaps.file().name(),
                  sourceName,
                  source.virtualBytes(),
                  bitmaps.virtualBytes()));
    }
    markInUse(List.of(bitmap));
    Content content = bitmap.content();
    if (content == null) {
      throw new AssertionError("one operation at a time");
    }
    long[] at = new long[1];
    source.dirtyExtents(
        sourceName,
        0,
        source.virtualBytes(),
        (bytes, dirty) -> {
          if (dirty) {
            content.dirty().set(at[0], bytes);
          }
          at[0] += bytes;
          return true;
        });
    settleUnlessEnabled(List.of(bitmap));
  }

  // ---- storing

  private void markInUse(Collection<Bitmap> marked) throws IOException {
    locked(() -> {
      for (Bitmap bitmap : marked) {
        if (!bitmap.entry.inUse()) {
          directory.setFlags(bitmap, bitmap.entry.flags() | BitmapEntry.IN_USE);
        }
      }
      bitmaps.file().sync();
    });
  }

  private void settleUnlessEnabled(List<Bitmap> changed) throws IOException {
    settle(changed.stream().filter(bitmap -> !bitmap.enabled()).toList());
  }

  /** Brings bitmaps to rest: nothing is recorded in them meanwhile. */
  private void settle(List<Bitmap> resting) throws IOException {
    if (resting.isEmpty()) {
      return;
    }
    List<Bitmap> changing = resting.stream().filter(bitmap -> bitmap.entry.inUse()).toList();
    List<Long> unused =
        changing.isEmpty() ? List.of() : writer.store(changing, bitmaps.virtualBytes());
    locked(() -> {
      for (Bitmap bitmap : resting) {
        directory.setFlags(bitmap, bitmap.restingFlags());
        bitmap.content(bitmaps.stored(bitmap));
      }
      bitmaps.file().sync();
      bitmaps.publishRecording();
      writer.release(unused);
    });
  }

  /** Before the image is closed: stores what was recorded. No request is in the image any more. */
  public void close() throws IOException {
    resizeTables();
    settle(usable().stream().filter(bitmap -> bitmap.entry.inUse()).toList());
  }

  // ---- a disk of another size

  private List<Bitmap> usable() {
    return bitmaps.all().stream().filter(Bitmap::usable).toList();
  }

  private boolean sameTable(Bitmap bitmap, long diskBytes) {
    return bitmap.entry.tableEntries() == tableEntries(bitmap, diskBytes);
  }

  private long tableEntries(Bitmap bitmap, long diskBytes) {
    return BitmapEntry.tableEntriesFor(
        diskBytes, bitmap.granularityBits(), bitmaps.geometry().clusterBytes());
  }

  /** Throws unless all bitmaps can describe a disk of that size. */
  public void requireResizable(long diskBytes) throws IOException {
    String file = bitmaps.file().name();
    if (diskBytes == 0 && !bitmaps.all().isEmpty()) {
      throw new UnsupportedImageException(
          file + ": a disk of 0 bytes has no bitmaps, and this one has some: remove them");
    }
    for (Bitmap bitmap : bitmaps.all()) {
      if (!bitmap.entry.usable() && !bitmap.entry.inUse()) {
        throw new UnsupportedImageException(
            "%s: its size can't change because bitmap %s has data that is unknown here"
                .formatted(file, bitmap.name()));
      }
      if (bitmap.usable()
          && !BitmapEntry.dataFits(
              tableEntries(bitmap, diskBytes), bitmaps.geometry().clusterBytes())) {
        throw new IOException(
            "%s: bitmap %s would be too large for a disk of %d bytes: remove it"
                .formatted(file, bitmap.name(), diskBytes));
      }
    }
  }

  /** Before the disk grows: its bitmaps have room for what is added. */
  public void beforeGrowth(long diskBytes) throws IOException {
    if (usable().isEmpty()) {
      return; // nobody has to wait for the requests in flight
    }
    markInUse(usable().stream().filter(bitmap -> !sameTable(bitmap, diskBytes)).toList());
    freeze.whileFrozen(() -> {
      for (Bitmap bitmap : usable()) {
        Content content = bitmap.content();
        if (content != null) {
          DirtyPages more = new DirtyPages(content.dirty(), bitmaps.bits(bitmap, diskBytes));
          bitmap.content(new Content(content.stored(), content.allOnes(), more));
        }
      }
      bitmaps.publishRecording();
    });
  }

  /** The disk has grown, but for telling anybody. */
  public void resized(long diskBytes) {
    bitmaps.virtualBytes(diskBytes);
  }

  /**
   * After the disk has grown, or has not: tables get the length that its size asks for. What was
   * added is not dirty: it reads as zeroes, as in any copy that is made as long.
   */
  public void afterGrowth() throws IOException {
    resizeTables();
    settleUnlessEnabled(usable().stream().filter(bitmap -> bitmap.entry.inUse()).toList());
  }

  /** Bitmaps that nobody believes until {@link #afterShrinking} has made them right. */
  public static final class Shorter {
    private final Map<Bitmap, Content> said = new LinkedHashMap<>();
  }

  /** Before the disk, which nobody uses, shrinks: if that fails its bitmaps can't be believed. */
  public Shorter beforeShrinking(long diskBytes) throws IOException {
    Shorter shorter = new Shorter();
    for (Bitmap bitmap : bitmaps.all()) {
      Content content = bitmap.content();
      if (content != null && differs(bitmap, diskBytes)) {
        DirtyPages dirty = content.dirty().shortened(bitmaps.bits(bitmap, diskBytes));
        shorter.said.put(bitmap, new Content(content.stored(), content.allOnes(), dirty));
      }
    }
    markInUse(shorter.said.keySet());
    locked(() -> {
      shorter.said.keySet().forEach(bitmap -> bitmap.content(null));
      bitmaps.publishRecording();
    });
    return shorter;
  }

  /** After the disk has shrunk: bitmaps say what they said, as far as the disk reaches. */
  public void afterShrinking(Shorter shorter, long diskBytes) throws IOException {
    bitmaps.virtualBytes(diskBytes);
    resizeTables(List.copyOf(shorter.said.keySet()));
    for (Map.Entry<Bitmap, Content> entry : shorter.said.entrySet()) {
      Content said = entry.getValue();
      StoredBits stored = said.stored() == null ? null : bitmaps.stored(entry.getKey()).stored();
      entry.getKey().content(new Content(stored, said.allOnes(), said.dirty()));
    }
    locked(bitmaps::publishRecording);
    settleUnlessEnabled(List.copyOf(shorter.said.keySet()));
  }

  private void resizeTables() throws IOException {
    long diskBytes = bitmaps.virtualBytes();
    resizeTables(usable().stream().filter(bitmap -> !sameTable(bitmap, diskBytes)).toList());
  }

  /** Gives bitmaps, whose in_use flags are set, tables for the present size of the disk. */
  private void resizeTables(List<Bitmap> resized) throws IOException {
    if (resized.isEmpty()) {
      return;
    }
    locked(() -> {
      List<HostRun> taken = new ArrayList<>();
      List<BitmapEntry> old = resized.stream().map(bitmap -> bitmap.entry).toList();
      List<Change> changes = new ArrayList<>();
      for (Bitmap bitmap : directory.bitmaps()) {
        BitmapEntry entry = bitmap.entry;
        changes.add(new Change(bitmap, resized.contains(bitmap) ? resize(entry, taken) : entry));
      }
      replace(changes, taken);
      for (Bitmap bitmap : resized) {
        adoptTable(bitmap);
      }
      bitmaps.publishRecording();
      for (BitmapEntry entry : old) {
        writer.release(entry, Math.toIntExact(entriesNow(entry)));
      }
    });
  }

  private long entriesNow(BitmapEntry entry) {
    return BitmapEntry.tableEntriesFor(
        bitmaps.virtualBytes(), entry.granularityBits(), bitmaps.geometry().clusterBytes());
  }

  private BitmapEntry resize(BitmapEntry entry, List<HostRun> taken) throws IOException {
    int entries = Math.toIntExact(entriesNow(entry));
    long[] table = writer.readTable(entry);
    writer.clearBehindEnd(entry, table, bitmaps.virtualBytes(), taken);
    HostRun run = writer.writeTable(table, entries);
    taken.add(run);
    return entry.withTable(bitmaps.geometry().offsetOf(run.first()), entries);
  }

  /** What is recorded stays, over what the new table says. */
  private void adoptTable(Bitmap bitmap) throws IOException {
    Content content = bitmap.content();
    if (content != null) {
      Content stored = bitmaps.stored(bitmap);
      bitmap.content(
          new Content(
              content.stored() == null ? null : stored.stored(),
              content.allOnes(),
              content.dirty()));
    }
  }

  /**
   * Throws if a cluster that a bitmap refers to is counted as free: then it might be given away or
   * punched, and a bitmap say less than it did.
   */
  public void requireCounted() throws IOException {
    for (Bitmap bitmap : usable()) {
      locked(() -> writer.requireCounted(bitmap.entry));
    }
  }

  // ---- a disk with other contents

  /**
   * Before the disk is made what it was once, perhaps of another size: marks the bitmaps that this
   * makes wrong as ones that can't be believed.
   *
   * @return the names of those which {@link #afterRevert} can make right again
   */
  public List<String> beforeRevert(long diskBytes) throws IOException {
    requireResizable(diskBytes);
    List<Bitmap> wrong =
        usable().stream().filter(bitmap -> bitmap.enabled() || differs(bitmap, diskBytes)).toList();
    markInUse(wrong);
    return wrong.stream().map(Bitmap::name).filter(Objects::nonNull).toList();
  }

  private boolean differs(Bitmap bitmap, long diskBytes) {
    return bitmaps.bits(bitmap, diskBytes) != bitmaps.bits(bitmap, bitmaps.virtualBytes());
  }

  /**
   * After that, when the image was opened again: in the bitmaps that record, everything is dirty;
   * the others say what they said, as far as the disk reaches.
   */
  public void afterRevert(List<String> names) throws IOException {
    List<Bitmap> marked =
        bitmaps.all().stream()
            .filter(bitmap -> bitmap.entry.usable() && bitmap.entry.inUse())
            .filter(bitmap -> names.contains(String.valueOf(bitmap.name())))
            .toList();
    resizeTables(marked);
    for (Bitmap bitmap : marked) {
      bitmap.content(
          bitmap.enabled()
              ? new Content(null, true, bitmaps.newPages(bitmap))
              : bitmaps.stored(bitmap));
    }
    settle(marked);
  }
}
