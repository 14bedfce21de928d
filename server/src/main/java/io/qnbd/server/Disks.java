package io.qnbd.server;

import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.server.remote.RemoteDisk;
import io.qnbd.server.remote.RemoteUri;
import java.io.IOException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;

/** Disks as they are named on a command line: by a path, or by the URI of an NBD export. */
final class Disks {
  private Disks() {}

  static boolean remote(String name) {
    return RemoteUri.looksLike(name);
  }

  /**
   * Opens an image or connects to an export.
   *
   * @param connections the most connections to an export
   */
  static DiskImage open(String name, OpenOptions options, int connections) throws IOException {
    if (!remote(name)) {
      return DiskImages.open(path(name), options);
    }
    if (options.format() == ImageFormat.QCOW2) {
      throw new UsageException(name + ": an NBD export is a raw disk; leave its format out");
    }
    if (options.snapshot() != null) {
      throw new UsageException(name + ": an NBD export has no snapshots to choose from");
    }
    if (options.passphrase() != null) {
      throw new UsageException(name + ": an NBD export takes no passphrase: its server has it");
    }
    return RemoteDisk.open(uri(name), options.readOnly(), connections);
  }

  private static RemoteUri uri(String name) {
    try {
      return RemoteUri.parse(name);
    } catch (IllegalArgumentException e) {
      throw new UsageException(String.valueOf(e.getMessage()));
    }
  }

  static Path path(String name) {
    try {
      return Path.of(name);
    } catch (InvalidPathException _) {
      throw new UsageException("not a file name: '" + name + "'");
    }
  }
}
