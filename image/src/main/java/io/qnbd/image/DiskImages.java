package io.qnbd.image;

import io.qnbd.image.check.Checker;
import io.qnbd.image.check.Inspector;
import io.qnbd.image.check.LayoutWalk;
import io.qnbd.image.check.Repair;
import io.qnbd.image.disk.Committing;
import io.qnbd.image.disk.ImageFiles;
import io.qnbd.image.disk.Rebasing;
import io.qnbd.image.io.FileStorage;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;

/**
 * Opens, makes, describes and checks images.
 *
 * <p>Every error is an {@link IOException} whose message is one sentence for the person who named
 * the file: what happened, to which file, and what to do where that is known.
 */
public final class DiskImages {
  private DiskImages() {}

  /**
   * Does now what else the first call would have to do, which takes Java some tenths of a second:
   * for a thread of a program that has other things to do before it opens an image. Never needed.
   */
  public static void prepare() {
    FileStorage.prepare();
  }

  /** Opens the image at {@code path}; the caller closes it. */
  public static DiskImage open(Path path, OpenOptions options) throws IOException {
    return open(path, options, ProgressListener.NONE);
  }

  /**
   * The same, told how far the work is where an image that was not closed cleanly must first have
   * its refcounts rebuilt.
   */
  public static DiskImage open(Path path, OpenOptions options, ProgressListener progress)
      throws IOException {
    return ImageFiles.open(path, options, progress);
  }

  /**
   * Opens the image at {@code path} read-only and puts a temporary qcow2 overlay over it, which
   * takes all writes. The overlay is a file without a name in {@code directory}: its space is given
   * back when the disk is closed or the process ends, however it ends, and what was written is
   * gone.
   *
   * <p>The image below is locked as a backing file is: others may read it, none may write to it.
   * The disk is as long as the image, rounded up to 512 bytes, and may grow. Flushing it makes
   * nothing durable, because nothing of it outlives the process.
   *
   * @param options how the image below is opened; read-only in any case. Cache sizes and batches
   *     are the overlay's too
   * @param directory has room for what is written; must be a directory that exists
   */
  public static DiskImage openTemporary(
      Path path, OpenOptions options, Path directory, ProgressListener progress)
      throws IOException {
    return ImageFiles.openTemporary(path, options, directory, progress);
  }

  /**
   * Makes the disk of an image at rest what it was when the snapshot was taken; what was written
   * since is lost. A crash in the middle leaves the disk as it was or as the snapshot has it.
   *
   * @param snapshot a snapshot's name or id
   * @param options how the image is opened; for writing in any case
   */
  public static void applySnapshot(
      Path path, String snapshot, OpenOptions options, ProgressListener progress)
      throws IOException {
    ImageFiles.applySnapshot(path, snapshot, options, progress);
  }

  /** Makes an image at {@code path}; fails when something is there already. */
  public static void create(Path path, CreateOptions options) throws IOException {
    create(path, options, ProgressListener.NONE);
  }

  /** The same, told how far the writing of a full preallocation is. */
  public static void create(Path path, CreateOptions options, ProgressListener progress)
      throws IOException {
    ImageFiles.create(path, options, true, progress);
  }

  /**
   * The same, but a backing file is named without a look at it: it need not be there yet. The size
   * must be given.
   */
  public static void createUnsafe(Path path, CreateOptions options, ProgressListener progress)
      throws IOException {
    ImageFiles.create(path, options, false, progress);
  }

  /**
   * Makes the disk of an image at rest larger or smaller. A crash in the middle leaves the old disk
   * or the new one.
   */
  public static void resize(
      Path path, OpenOptions options, ResizeOptions resize, ProgressListener progress)
      throws IOException {
    ImageFiles.resize(path, options, resize, progress);
  }

  /** Compacts an image at rest; see {@link DiskImage#compact}. */
  public static Compaction compact(Path path, OpenOptions options, ProgressListener progress)
      throws IOException {
    return ImageFiles.compact(path, options, progress);
  }

  /**
   * Gives an image at rest another backing file, or none. The disk reads as before, at any moment
   * and after a crash, unless the change is unsafe.
   */
  public static void rebase(
      Path path, OpenOptions options, RebaseOptions rebase, ProgressListener progress)
      throws IOException {
    Rebasing.rebase(path, options, rebase, progress);
  }

  /**
   * Changes the format of a qcow2 image at rest: its version, the width of its reference counts,
   * whether they may be lazy. The disk reads as before, at any moment and after a crash, which
   * leaves a whole image that has some of what was asked.
   */
  public static void amend(
      Path path, OpenOptions options, AmendOptions amend, ProgressListener progress)
      throws IOException {
    ImageFiles.amend(path, options, amend, progress);
  }

  /**
   * Writes what an image at rest has of its own into its backing file, which nobody may have open,
   * and then empties the image. Other images with the same backing file are worthless afterwards.
   *
   * @param keep whether the image keeps what it has
   */
  public static void commit(Path path, OpenOptions options, boolean keep, ProgressListener progress)
      throws IOException {
    Committing.commit(path, options, keep, progress);
  }

  /** Describes the image at {@code path} without opening any file that the image names. */
  public static ImageReport inspect(Path path, OpenOptions options) throws IOException {
    try (FileStorage file = ImageFiles.openForReading(path, options)) {
      return Inspector.inspect(path, file, options.format(), file.diskBytes());
    }
  }

  /**
   * Describes the image at {@code path} and those of its backing chain, the topmost first. Backing
   * files are opened, for a look at their headers, as the options' policy permits.
   */
  public static List<ImageReport> inspectChain(Path path, OpenOptions options) throws IOException {
    return ImageFiles.inspectChain(path, options);
  }

  /**
   * Tells what each cluster of a qcow2 image's file is used for, reading only. Damage does not stop
   * it: what {@link #check} would complain of is told as far as it can be read.
   */
  public static void layout(
      Path path, OpenOptions options, ProgressListener progress, LayoutSink sink)
      throws IOException {
    try (FileStorage file = ImageFiles.openForReading(path, options)) {
      LayoutWalk.tell(file, progress, sink);
    }
  }

  /** Checks a qcow2 image's metadata, reading only. */
  public static CheckReport check(Path path, OpenOptions options) throws IOException {
    return check(path, options, ProgressListener.NONE);
  }

  /** The same, told how far it is. */
  public static CheckReport check(Path path, OpenOptions options, ProgressListener progress)
      throws IOException {
    try (FileStorage file = ImageFiles.openForReading(path, options)) {
      return Checker.check(file, progress);
    }
  }

  /**
   * Repairs a qcow2 image that nobody has open. A power cut or crash in the middle leaves an image
   * that is no worse than it was. No other file is opened.
   */
  public static RepairReport repair(Path path, RepairScope scope, ProgressListener progress)
      throws IOException {
    try (FileStorage file = ImageFiles.openForChange(path)) {
      return Repair.repair(file, scope, progress);
    }
  }
}
