package io.qnbd.image.io;

import io.qnbd.image.ImageLockedException;
import java.io.IOException;

/**
 * The locks by which QEMU's tools and qnbd keep out of each other's images.
 *
 * <p>Each is a one-byte shared lock of the open file description, at a byte that stands for a
 * permission; the bytes need not exist in the file. A user locks {@code 100 + i} for each
 * permission {@code i} that it uses, and {@code 200 + i} for each that it does not share with
 * others.
 *
 * <pre>
 * permission  0 read what was written   1 write   3 resize      (2, write unchanged bytes: not ours)
 * writer      uses 0, 1, 3: locks 100, 101, 103                 does not share 1, 3: locks 201, 203
 * reader      uses 0:       locks 100                           does not share 1, 3: locks 201, 203
 * </pre>
 *
 * <p>Locking first and testing afterwards for what excludes it, each of two users that start
 * together sees the other: both may give up, never both go on. The locks end when the storage is
 * closed or the process ends, whichever other descriptors of the file are closed before.
 */
public final class FileLocks {
  private static final int USED_BASE = 100;
  private static final int UNSHARED_BASE = 200;

  /** One past the last byte that a later version might use: bounds what is unlocked. */
  private static final int END = 300;

  private static final int CONSISTENT_READ = 0;
  private static final int WRITE = 1;
  private static final int RESIZE = 3;

  private FileLocks() {}

  /** What the file is opened for. */
  public enum Use {
    /** The active image, open for writing. */
    WRITER,
    /** A backing file or an image open for reading: others may read it too. */
    READER
  }

  private static int[] used(Use use) {
    return switch (use) {
      case WRITER -> new int[] {CONSISTENT_READ, WRITE, RESIZE};
      case READER -> new int[] {CONSISTENT_READ};
    };
  }

  /** Both kinds of users read what must not change under them. */
  private static int[] unshared() {
    return new int[] {WRITE, RESIZE};
  }

  /**
   * Locks the file for {@code use} until it is closed.
   *
   * @return false when the host's file system has no such locks, so that nothing is locked
   * @throws ImageLockedException when another process, or another storage of this one, excludes it;
   *     nothing is locked then
   */
  public static boolean lock(FileStorage file, Use use) throws IOException {
    int fd = file.fd();
    for (int permission : used(use)) {
      if (!set(file, fd, USED_BASE + permission)) {
        return false;
      }
    }
    for (int permission : unshared()) {
      if (!set(file, fd, UNSHARED_BASE + permission)) {
        return false;
      }
    }
    boolean excluded = false;
    for (int permission : used(use)) {
      excluded |= held(file, fd, UNSHARED_BASE + permission);
    }
    for (int permission : unshared()) {
      excluded |= held(file, fd, USED_BASE + permission);
    }
    if (excluded) {
      boolean written = held(file, fd, USED_BASE + WRITE);
      unlock(fd);
      throw locked(file, written);
    }
    return true;
  }

  private static boolean set(FileStorage file, int fd, int at) throws IOException {
    int result = Posix.lock(fd, Posix.F_RDLCK, at, 1);
    return switch (-result) {
      case 0 -> true;
      case Posix.EAGAIN, Posix.EACCES -> {
        unlock(fd); // not QEMU: its locks on these bytes are shared ones
        throw locked(file, true);
      }
      case Posix.EINVAL, Posix.ENOLCK, Posix.ENOSYS, Posix.EOPNOTSUPP -> {
        unlock(fd);
        yield false;
      }
      default -> {
        unlock(fd);
        throw Posix.failure("locking " + file.name(), -result);
      }
    };
  }

  /** Whether anyone else holds a lock, shared or not, on the byte. */
  private static boolean held(FileStorage file, int fd, int at) throws IOException {
    int result = Posix.excluded(fd, Posix.F_WRLCK, at, 1);
    if (result < 0) {
      unlock(fd);
      throw Posix.failure("testing the locks of " + file.name(), -result);
    }
    return result == 1;
  }

  private static void unlock(int fd) {
    Posix.lock(fd, Posix.F_UNLCK, USED_BASE, END - USED_BASE);
  }

  private static ImageLockedException locked(FileStorage file, boolean written) {
    return new ImageLockedException(
        ("%s is in use by another process (%s); stop that first;"
                + " info and check look all the same with --force-share")
            .formatted(
                file.name(),
                written ? "it holds the write lock" : "it reads the image and shares no writing"));
  }
}
