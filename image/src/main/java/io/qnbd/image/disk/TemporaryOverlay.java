package io.qnbd.image.disk;

import io.qnbd.image.CacheMode;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.create.ImageCreator;
import io.qnbd.image.format.HeaderRules;
import io.qnbd.image.io.FileStorage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * A qcow2 overlay that lasts as long as it is open.
 *
 * <p>Its file loses its name before a byte of it is written, so that it goes with the last
 * descriptor however the process ends; growth, holes and space belong to the file, not to its name.
 * Its header names no backing file, and it is not locked: nobody else can open it.
 *
 * <p>Syncs are left out: they keep data for whoever opens the file after a crash, and there will be
 * nobody. For the same reason the image permits lazy refcounts, whose rebuild never comes.
 */
final class TemporaryOverlay {
  private static final CreateOptions USUAL = CreateOptions.qcow2(0);

  private TemporaryOverlay() {}

  /** Puts an overlay over {@code base}, which it closes when it is closed or if this fails. */
  static DiskImage open(DiskImage base, OpenOptions options, Path directory) throws IOException {
    FileStorage file;
    boolean made = false;
    try {
      file = create(directory, base.virtualBytes());
      made = true;
    } finally {
      if (!made) {
        base.close();
      }
    }
    return Qcow2Opener.openOver(base, file, writing(options));
  }

  private static OpenOptions writing(OpenOptions options) {
    return options
        .withFormat(ImageFormat.QCOW2)
        .withSnapshot(null)
        .withForceShare(false)
        .withReadOnly(false)
        .withCacheMode(CacheMode.UNSAFE);
  }

  private static FileStorage create(Path directory, long virtualBytes) throws IOException {
    if (!Files.isDirectory(directory)) {
      throw new IOException(
          directory + " is not a directory, in which a temporary overlay could be made");
    }
    FileStorage file = FileStorage.createUnnamed(directory);
    boolean done = false;
    try {
      ImageCreator.create(file, shape(virtualBytes));
      done = true;
      return file;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  /** As images usually are, but with clusters that are large enough for the largest disks. */
  private static CreateOptions shape(long virtualBytes) {
    int clusterBits = Integer.numberOfTrailingZeros(USUAL.clusterBytes());
    while (clusterBits < HeaderRules.CLUSTER_BITS_MAX
        && HeaderRules.l1EntriesFor(virtualBytes, clusterBits, false)
            > HeaderRules.L1_ENTRIES_MAX) {
      clusterBits++;
    }
    return new CreateOptions(
        ImageFormat.QCOW2,
        virtualBytes,
        1 << clusterBits,
        USUAL.version(),
        USUAL.refcountBits(),
        true,
        false,
        null,
        null,
        Preallocation.OFF);
  }
}
