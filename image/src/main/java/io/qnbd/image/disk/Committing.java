package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.FileStorage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.file.Path;

/**
 * Writes what an image at rest has of its own into its backing file.
 *
 * <pre>
 *   1. grow   the backing file's disk, if the image's is longer
 *   2. copy   what the image has                                    durable before
 *   3. empty  the image, so that it reads from the backing file
 * </pre>
 *
 * <p>The image reads the same all the time. A power cut in the midst leaves a backing file that has
 * some of the changes already, and an image that has all of them that matter.
 */
public final class Committing {
  private Committing() {}

  /** Commits the image; see {@link io.qnbd.image.DiskImages#commit}. */
  public static void commit(Path path, OpenOptions options, boolean keep, ProgressListener progress)
      throws IOException {
    FileStorage file = FileStorage.open(path, false, options.cacheMode());
    ImageFiles files = new ImageFiles(options.backingPolicy(), progress);
    boolean opened = false;
    DiskImage base;
    try {
      ImageFiles.lock(file, options);
      base = openBase(path, file, options, files);
      opened = true;
    } finally {
      if (!opened) {
        file.close();
      }
    }
    try (Qcow2Image image = Qcow2Opener.openOver(base, file, options)) {
      ImageFiles.requireNeeded(path, options, image.encrypted() || files.encrypted());
      if (image.virtualBytes() > base.virtualBytes()) {
        base.resize(image.virtualBytes());
      }
      copy(image, base, progress);
      base.flush();
      if (!keep) {
        image.empty(progress);
      }
    }
  }

  private static DiskImage openBase(
      Path path, FileStorage file, OpenOptions options, ImageFiles files) throws IOException {
    if (ImageFiles.formatOf(file, options) == ImageFormat.RAW) {
      throw new UnsupportedImageException(path + ": a raw image has no backing file");
    }
    Header header = ImageFile.of(file).readHeader();
    header.requireWritable(path.toString());
    String name = header.backingFile();
    if (name == null) {
      throw new UnsupportedImageException(path + ": has no backing file to commit to");
    }
    ImageFormat format = Qcow2Opener.backingFormat(file, name, header.backingFormat());
    Path base = files.allowed(path, "backing file", name);
    try {
      return files.openFile(base, options.withFormat(format));
    } catch (UnsupportedImageException e) {
      throw e;
    } catch (IOException e) {
      throw new IOException(
          "%s can't be committed, which needs to write to its backing file: %s"
              .formatted(path, e.getMessage()),
          e);
    }
  }

  private static void copy(Qcow2Image image, DiskImage base, ProgressListener progress)
      throws IOException {
    long size = image.virtualBytes();
    Runs.forEach(
        image,
        size,
        (offset, bytes, state) -> {
          if (state.depth() == 1 && state.zero()) {
            base.writeZeroes(offset, bytes, ZeroMode.MAY_UNMAP);
          } else if (state.depth() == 1) {
            base.write(offset, Runs.read(image, offset, (int) bytes));
          }
          progress.progress("committing", offset + bytes, size);
        });
  }
}
