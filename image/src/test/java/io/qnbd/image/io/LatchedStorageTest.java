package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.NoSpaceException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

final class LatchedStorageTest {
  private final FaultyFile file = new FaultyFile();
  private final LatchedStorage storage = new LatchedStorage(file);

  @Test
  void failedSyncLatchesEveryChangeButNotReads() throws IOException {
    storage.write(0, bytes(4096));
    file.syncFailure = new IOException("Input/output error");
    assertThrows(IOException.class, storage::sync);
    file.syncFailure = null;
    assertTrue(storage.failed());
    String suffix =
        ": an earlier write or sync of disk failed (Input/output error): reopen the image";
    refused(
        "writing 4096 bytes at 0x10000 of disk" + suffix, () -> storage.write(65536, bytes(4096)));
    refused("syncing disk" + suffix, storage::sync);
    refused("setting the length of disk to 7" + suffix, () -> storage.setLength(7));
    refused("punching a hole of 5 bytes at 0x4 of disk" + suffix, () -> storage.punchHole(4, 5));
    refused("allocating 5 bytes at 0x4 of disk" + suffix, () -> storage.allocate(4, 5));
    refused("zeroing 5 bytes at 0x4 of disk" + suffix, () -> storage.zeroRange(4, 5));
    assertEquals(2, file.calls, "a refused call reached the file");
    assertEquals(0, storage.read(0, ByteBuffer.allocate(1)));
    storage.close();
    assertTrue(file.closed);
  }

  @Test
  void fullHostOnAWriteDoesNotLatch() throws IOException {
    file.writeFailure = new NoSpaceException("full");
    assertThrows(NoSpaceException.class, () -> storage.write(0, bytes(1)));
    file.writeFailure = null;
    storage.write(0, bytes(1));
    storage.sync();
    assertFalse(storage.failed());
    assertEquals(2, storage.writes());
  }

  @Test
  void fullHostOnASyncLatches() throws IOException {
    storage.write(0, bytes(1));
    file.syncFailure = new NoSpaceException("full");
    assertThrows(NoSpaceException.class, storage::sync);
    assertTrue(storage.failed());
  }

  @Test
  void syncWithNothingToSyncIsLeftOut() throws IOException {
    storage.sync();
    assertEquals(0, storage.syncs());
    storage.write(0, bytes(1));
    storage.sync();
    storage.sync();
    assertEquals(1, storage.syncs());
    storage.punchHole(0, 1);
    storage.sync();
    assertEquals(2, storage.syncs());
  }

  @Test
  void failedWriteStillNeedsASync() {
    file.writeFailure = new NoSpaceException("full");
    assertThrows(NoSpaceException.class, () -> storage.write(0, bytes(1)));
    file.syncFailure = new IOException("lost");
    assertThrows(IOException.class, storage::sync);
  }

  @Test
  void writeThatEndsDuringASyncNeedsAnother() throws IOException {
    storage.write(0, bytes(1));
    file.duringSync = () -> storage.write(1, bytes(1));
    storage.sync();
    file.duringSync = () -> {};
    storage.sync();
    assertEquals(2, storage.syncs());
  }

  /** The kernel tells of a lost write once, so the second sync would succeed. */
  @Test
  void syncBesideAFailingOneFailsToo() throws Exception {
    storage.write(0, bytes(1));
    CountDownLatch running = new CountDownLatch(1);
    CountDownLatch mayFail = new CountDownLatch(1);
    file.duringSync =
        () -> {
          running.countDown();
          try {
            mayFail.await();
          } catch (InterruptedException e) {
            throw new AssertionError(e);
          }
          throw new IOException("lost");
        };
    AtomicInteger failed = new AtomicInteger();
    Runnable sync =
        () -> {
          try {
            storage.sync();
          } catch (IOException e) {
            failed.incrementAndGet();
          }
        };
    Thread first = Thread.ofPlatform().start(sync);
    running.await();
    file.duringSync = () -> {};
    Thread second = Thread.ofPlatform().start(sync);
    second.join(50);
    assertTrue(second.isAlive(), "a sync returned while another was running");
    mayFail.countDown();
    first.join();
    second.join();
    assertEquals(2, failed.get());
  }

  private static ByteBuffer bytes(int count) {
    return ByteBuffer.allocate(count);
  }

  private static void refused(String message, Executable call) {
    assertEquals(message, assertThrows(IOException.class, call).getMessage());
  }

  @FunctionalInterface
  private interface Step {
    void run() throws IOException;
  }

  /** Holds nothing; fails as told and counts the changes and syncs that reach it. */
  private static final class FaultyFile implements Storage {
    private @Nullable IOException syncFailure;
    private @Nullable IOException writeFailure;
    private volatile Step duringSync = () -> {};
    private int calls;
    private boolean closed;

    @Override
    public String name() {
      return "disk";
    }

    @Override
    public long length() {
      return 0;
    }

    @Override
    public int read(long at, ByteBuffer target) {
      return 0;
    }

    @Override
    public void write(long at, ByteBuffer source) throws IOException {
      calls++;
      if (writeFailure != null) {
        throw writeFailure;
      }
    }

    @Override
    public void sync() throws IOException {
      calls++;
      duringSync.run();
      if (syncFailure != null) {
        throw syncFailure;
      }
    }

    @Override
    public void setLength(long bytes) {
      calls++;
    }

    @Override
    public void punchHole(long at, long bytes) {
      calls++;
    }

    @Override
    public void allocate(long at, long bytes) {
      calls++;
    }

    @Override
    public void zeroRange(long at, long bytes) {
      calls++;
    }

    @Override
    public void prefetch(long at, long bytes) {}

    @Override
    public void close() {
      closed = true;
    }
  }
}
