package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageLockedException;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Two storages of one file are two open file descriptions, as two processes have them. */
final class FileLocksTest {
  private static final String WRITTEN =
      "disk.qcow2 is in use by another process (it holds the write lock);"
          + " stop that first; info and check look all the same with --force-share";
  private static final String READ =
      "disk.qcow2 is in use by another process (it reads the image and shares no writing);"
          + " stop that first; info and check look all the same with --force-share";

  @TempDir private Path temp;
  private FileStorage one;
  private FileStorage two;

  @BeforeEach
  void open() throws IOException {
    Path path = temp.resolve("disk.qcow2");
    one = FileStorage.create(path, CacheMode.WRITEBACK);
    two = FileStorage.open(path, true, CacheMode.WRITEBACK);
  }

  @AfterEach
  void close() throws IOException {
    one.close();
    two.close();
  }

  @Test
  void writerExcludesWriters() throws IOException {
    assertTrue(FileLocks.lock(one, FileLocks.Use.WRITER));
    refused(WRITTEN, two, FileLocks.Use.WRITER);
  }

  @Test
  void writerExcludesReaders() throws IOException {
    assertTrue(FileLocks.lock(one, FileLocks.Use.WRITER));
    refused(WRITTEN, two, FileLocks.Use.READER);
  }

  @Test
  void readersExcludeWriters() throws IOException {
    assertTrue(FileLocks.lock(two, FileLocks.Use.READER));
    refused(READ, one, FileLocks.Use.WRITER);
  }

  @Test
  void readersShare() throws IOException {
    assertTrue(FileLocks.lock(one, FileLocks.Use.READER));
    assertTrue(FileLocks.lock(two, FileLocks.Use.READER));
  }

  @Test
  void refusedLockLeavesNothingBehind() throws IOException {
    assertTrue(FileLocks.lock(two, FileLocks.Use.READER));
    refused(READ, one, FileLocks.Use.WRITER);
    two.close();
    two = FileStorage.open(temp.resolve("disk.qcow2"), true, CacheMode.WRITEBACK);
    assertTrue(FileLocks.lock(two, FileLocks.Use.WRITER));
  }

  @Test
  void closingUnlocks() throws IOException {
    assertTrue(FileLocks.lock(one, FileLocks.Use.WRITER));
    one.close();
    assertTrue(FileLocks.lock(two, FileLocks.Use.READER));
  }

  /** A lock of the process, as FileChannel's, would be gone after the close. */
  @Test
  void closingAnotherDescriptorOfTheFileKeepsTheLock() throws IOException {
    assertTrue(FileLocks.lock(one, FileLocks.Use.WRITER));
    FileStorage.open(temp.resolve("disk.qcow2"), true, CacheMode.WRITEBACK).close();
    refused(WRITTEN, two, FileLocks.Use.READER);
  }

  @Test
  void foreignExclusiveLockExcludes() throws IOException {
    assertEquals(0, Posix.lock(one.fd(), Posix.F_WRLCK, 0, 0));
    refused(WRITTEN, two, FileLocks.Use.READER);
  }

  private static void refused(String message, FileStorage file, FileLocks.Use use) {
    ImageLockedException e =
        assertThrows(ImageLockedException.class, () -> FileLocks.lock(file, use));
    assertEquals(message, e.getMessage());
  }
}
