package io.qnbd.image.disk;

import io.qnbd.image.io.LatchedStorage;
import java.io.IOException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The external data file of an image (qcow2 specification, "Header", incompatible feature 2): guest
 * clusters stand in it where they stand on the disk.
 *
 * @param storage belongs to the image
 * @param raw whether it is, by itself, always the disk's raw image, so that zeroes are written to
 *     it and not only into the tables
 */
record DataFile(LatchedStorage storage, boolean raw) {
  private static final Logger LOG = LoggerFactory.getLogger(DataFile.class);

  /**
   * Cuts it off behind that many bytes if it is longer and can be cut, which a block device can't:
   * nobody needs what lies there, so that is no reason to fail.
   */
  void cutOff(long bytes) throws IOException {
    if (storage.length() <= bytes) {
      return;
    }
    try {
      storage.setLength(bytes);
    } catch (IOException e) {
      LOG.warn("{}: stays longer than the disk: {}", storage.name(), e.getMessage());
    }
  }
}
