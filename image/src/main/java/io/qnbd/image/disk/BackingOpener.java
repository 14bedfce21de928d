package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import java.io.IOException;

/** Opens the backing file that an image names, or refuses to. */
@FunctionalInterface
public interface BackingOpener {
  /**
   * Opens the file for reading.
   *
   * @param name as the image has it: chosen by whoever wrote the image
   * @param format as the image's header says; never probed
   */
  DiskImage open(String name, ImageFormat format) throws IOException;
}
