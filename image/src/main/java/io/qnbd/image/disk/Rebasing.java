package io.qnbd.image.disk;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RebaseOptions;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.FileStorage;
import io.qnbd.image.metadata.HeaderRewrite;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Gives an image at rest another backing file, or none.
 *
 * <pre>
 *   1. copy    what the image reads from the old one and would read otherwise from the new one is
 *              written into the image                               durable before
 *   2. header  names the new one: see {@link HeaderRewrite}
 * </pre>
 *
 * <p>The disk reads the same all the time, whichever of the two the header names; a power cut may
 * leave an image that holds more than it has to. Unsafe, only the second step is done.
 */
public final class Rebasing {
  private Rebasing() {}

  /** Rebases the image; see {@link io.qnbd.image.DiskImages#rebase}. */
  public static void rebase(
      Path path, OpenOptions options, RebaseOptions rebase, ProgressListener progress)
      throws IOException {
    requireName(path, rebase);
    if (rebase.unsafe()) {
      try (FileStorage file = ImageFiles.openForChange(path)) {
        Header header = ImageFile.of(file).readHeader();
        header.requireKnownFeatures(file.name());
        ImageFiles.requireNeeded(path, options, header.cryptMethod() != Header.CRYPT_NONE);
        HeaderRewrite.write(file, named(header, rebase));
      }
      return;
    }
    ImageFiles files = new ImageFiles(options.backingPolicy(), progress);
    try (DiskImage image = files.openFile(path, options);
        Below below = open(path, options, rebase)) {
      ImageFiles.requireNeeded(path, options, files.encrypted() || below.encrypted());
      if (!(image instanceof Qcow2Image qcow2)) {
        throw new UnsupportedImageException(path + ": a raw image has no backing file");
      }
      DiskImage old = qcow2.backing();
      if (old != null) {
        copy(qcow2, old, below.image(), progress);
      } else if (below.image() != null) {
        hide(qcow2, below.image(), progress);
      }
      qcow2.flush();
      qcow2.changeHeader(header -> named(header, rebase));
    }
  }

  /** A backing file to be, or none; and whether a passphrase was needed for it. */
  private record Below(@Nullable DiskImage image, boolean encrypted) implements AutoCloseable {
    @Override
    public void close() throws IOException {
      if (image != null) {
        image.close();
      }
    }
  }

  private static void requireName(Path path, RebaseOptions rebase) throws IOException {
    String name = rebase.backingFile();
    if (name == null) {
      return;
    }
    if (rebase.backingFormat() == null) {
      throw new IOException(path + ": the format of a backing file must be given");
    }
    if (name.indexOf(':') >= 0
        && (name.indexOf('/') < 0 || name.indexOf('/') > name.indexOf(':'))) {
      throw new IOException(
          path + ": the backing file's name would be read as a protocol: write ./ before it");
    }
  }

  /** Whoever asks has named the file, so only what that names in turn is under the policy. */
  private static Below open(Path path, OpenOptions options, RebaseOptions rebase)
      throws IOException {
    String name = rebase.backingFile();
    ImageFormat format = rebase.backingFormat();
    if (name == null || format == null) {
      return new Below(null, false);
    }
    OpenOptions reading =
        OpenOptions.DEFAULT
            .withReadOnly(true)
            .withFormat(format)
            .withBackingPolicy(BackingPolicy.ANY)
            .withCacheMode(options.cacheMode())
            .withPassphrase(options.passphrase());
    Path backing = ImageFiles.directoryOf(path).resolve(name);
    ImageFiles files = new ImageFiles(BackingPolicy.ANY, ProgressListener.NONE);
    DiskImage image = files.openFile(backing, reading);
    return new Below(image, files.encrypted());
  }

  /** Where the image itself has nothing, the old bytes go in unless the new ones are the same. */
  private static void copy(
      Qcow2Image image, DiskImage old, @Nullable DiskImage below, ProgressListener progress)
      throws IOException {
    int unit = image.preferredBytes();
    long size = image.virtualBytes();
    Runs.forEach(
        image,
        size,
        (offset, bytes, state) -> {
          if (state.depth() != 1) {
            ByteBuffer is = Runs.read(image, offset, (int) bytes);
            ByteBuffer becomes =
                below == null
                    ? ByteBuffer.allocate((int) bytes)
                    : Runs.read(below, offset, (int) bytes);
            for (int at = 0; at < bytes; ) {
              // In whole clusters, the last one of the disk apart.
              int piece = (int) Math.min(bytes - at, unit - (offset + at) % unit);
              if (!is.slice(at, piece).equals(becomes.slice(at, piece))) {
                write(image, offset + at, is.slice(at, piece), old.virtualBytes());
              }
              at += piece;
            }
          }
          progress.progress("comparing", offset + bytes, size);
        });
  }

  /** Zeroes are marked where the mark says the same whatever comes to lie below. */
  private static void write(Qcow2Image image, long offset, ByteBuffer bytes, long oldEnd)
      throws IOException {
    boolean marked = offset + bytes.remaining() <= oldEnd;
    if (marked && Zeroes.all(bytes, 0, bytes.remaining())) {
      image.writeZeroes(offset, bytes.remaining(), ZeroMode.MAY_UNMAP);
    } else {
      image.write(offset, bytes);
    }
  }

  /** What was unallocated, and so zeroes, must not let the new backing file's bytes through. */
  private static void hide(Qcow2Image image, DiskImage below, ProgressListener progress)
      throws IOException {
    long size = Math.min(image.virtualBytes(), below.virtualBytes());
    int unit = image.preferredBytes();
    Runs.forEach(
        image,
        size,
        (offset, bytes, state) -> {
          if (state.depth() != 1) {
            ByteBuffer becomes = Runs.read(below, offset, (int) bytes);
            for (int at = 0; at < bytes; ) {
              int piece = (int) Math.min(bytes - at, unit - (offset + at) % unit);
              if (!Zeroes.all(becomes, at, at + piece)) {
                image.write(offset + at, Zeroes.buffer(Math.min(piece, Zeroes.blockBytes())));
              }
              at += Math.min(piece, Zeroes.blockBytes());
            }
          }
          progress.progress("comparing", offset + bytes, size);
        });
  }

  /** The header with the new name and format, everything else as it was. */
  static Header named(Header header, RebaseOptions rebase) {
    List<HeaderExtension> extensions = new ArrayList<>();
    ImageFormat format = rebase.backingFormat();
    if (rebase.backingFile() != null && format != null) {
      extensions.add(HeaderExtension.ofText(HeaderExtension.BACKING_FORMAT, format.toString()));
    }
    for (HeaderExtension extension : header.extensions()) {
      if (extension.type() != HeaderExtension.BACKING_FORMAT) {
        extensions.add(extension);
      }
    }
    return header.toBuilder().backingFile(rebase.backingFile()).extensions(extensions).build();
  }
}
