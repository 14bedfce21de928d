package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** Opens the files that an image names, or refuses to. */
@FunctionalInterface
public interface BackingOpener {
  /**
   * Opens the backing file for reading.
   *
   * @param name as the image has it: chosen by whoever wrote the image
   * @param format as the image's header says; never probed
   */
  DiskImage open(String name, ImageFormat format) throws IOException;

  /**
   * Opens the external data file, for writing if the image is.
   *
   * @param name as the image has it: chosen by whoever wrote the image; null if it names none
   */
  default Storage openData(@Nullable String name) throws IOException {
    throw new UnsupportedImageException(
        "the image keeps its data in a file of its own" + (name == null ? "" : ", " + name));
  }
}
