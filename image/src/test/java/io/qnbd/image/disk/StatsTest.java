package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageStats;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.SnapshotMaker;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;

/** What an image counts of its own work, in scripts whose counts are known. */
final class StatsTest {
  private static final int CLUSTER = 65536;
  private static final int WRITES = 1024;

  private static Engine engine(ImageShape shape) throws IOException {
    return new Engine(shape, new SeededRandom(1));
  }

  private static ByteBuffer pattern(long stamp, int clusters) {
    return ByteBuffer.wrap(Pattern.fill(stamp, clusters * CLUSTER));
  }

  @Test
  void countsEachStepOfAClustersLife() throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, 8 << 20);
    CrashStorage storage = new CrashStorage(shape.make(new byte[0]));
    try (DiskImage image = engine(shape).open(storage)) {
      image.write(0, pattern(1, 4));
      image.flush();
      ImageStats written = image.stats();
      // Five clusters were handed out, the L2 table first, of the first reservation of 16.
      assertEquals(16, written.reserved());
      assertEquals(1, written.refcountWrites());
      assertEquals(0, written.batched());
      assertEquals(2, written.syncs());
      assertEquals(1, written.commits());
      assertEquals(1, written.commitRequests());
      assertEquals(2, written.tableWrites());

      image.trim(0, 3L * CLUSTER);
      assertEquals(3, image.stats().batched());
      assertEquals(0, image.stats().applied());
      image.flush();
      ImageStats freed = image.stats();
      assertEquals(3, freed.applied());
      assertEquals(3, freed.cancelled());
      assertEquals(0, freed.coalesced());
      assertEquals(0, freed.reused());

      image.write(8 * CLUSTER, pattern(2, 3));
      image.flush();
      ImageStats reused = image.stats();
      assertEquals(3, reused.reused());
      assertEquals(16, reused.reserved());
      assertEquals(1, reused.refcountWrites());
      assertEquals(0, reused.returned());
      assertEquals(storage.count(Operation.SYNC), reused.syncs());
    }
    assertTrue(new RawQcow2(storage.contents()).check().clean());
  }

  /** 64 compressed clusters of zeroes share a host cluster: 64 references, one cluster freed. */
  @Test
  void referencesToOneClusterAreCoalesced() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 1 << 20).with(Preparation.COMPRESSED);
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, 1 << 20, 1, null, null);
    ImageMaker.compress(file, new byte[64 * 4096]);
    try (DiskImage image = engine(shape).open(file)) {
      image.trim(0, 64L * 4096);
      image.flush();
      ImageStats stats = image.stats();
      assertEquals(64, stats.batched());
      assertEquals(64, stats.applied());
      assertEquals(63, stats.coalesced());
      assertEquals(1, stats.cancelled());
    }
    assertTrue(new RawQcow2(file).check().clean());
  }

  /** References that a snapshot keeps: applied, but nothing is free to be handed out. */
  @Test
  void aClusterThatASnapshotKeepsIsNotCancelled() throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, 8 << 20);
    MemoryStorage file = shape.make(new byte[0]);
    try (DiskImage image = engine(shape).open(file)) {
      image.write(0, pattern(1, 4));
    }
    SnapshotMaker.take(file, "s");
    try (DiskImage image = engine(shape).open(file)) {
      image.write(0, pattern(2, 4));
      image.flush();
      ImageStats stats = image.stats();
      assertEquals(5, stats.batched()); // four clusters and the table
      assertEquals(5, stats.applied());
      assertEquals(0, stats.cancelled());
      assertEquals(0, stats.coalesced());
    }
    assertTrue(new RawQcow2(file).check().clean());
  }

  /** What is freed beyond what is worth keeping is written as free. */
  @Test
  void whatIsFreedBeyondTheLimitIsReturned() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 8 << 20).withBatches(4096, 0);
    MemoryStorage file = shape.make(new byte[0]);
    try (DiskImage image = engine(shape).open(file)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, 1500 * 4096)));
      image.flush();
      image.trim(0, 1500L * 4096);
      image.flush();
      ImageStats stats = image.stats();
      assertEquals(1500, stats.batched());
      assertEquals(1500, stats.applied());
      assertEquals(1500, stats.cancelled() + stats.returned());
      assertTrue(stats.returned() > 0, stats::toString);
    }
    assertTrue(new RawQcow2(file).check().clean());
  }

  @Test
  void oneSyncPerWrittenThroughWriteOfAFreshImage() throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, WRITES * CLUSTER);
    syncsPerWrite(shape, shape.make(new byte[0]), 1.05);
  }

  @Test
  void twoSyncsPerWrittenThroughWriteOverASnapshot() throws IOException {
    ImageShape shape =
        ImageShape.of(3, CLUSTER, 16, WRITES * CLUSTER)
            .with(Preparation.PREALLOCATED)
            .withSnapshots(1);
    MemoryStorage file = shape.make(new byte[0]);
    SnapshotMaker.take(file, "s");
    syncsPerWrite(shape, file, 2.05);
  }

  /** A write and a flush at a time; the image's count of syncs is the file's own. */
  private static void syncsPerWrite(ImageShape shape, MemoryStorage file, double limit)
      throws IOException {
    long before = file.count(Operation.SYNC);
    try (DiskImage image = engine(shape).open(file)) {
      for (int write = 0; write < WRITES; write++) {
        int cluster = write * 517 % WRITES; // odd, so each cluster comes once
        image.write((long) cluster * CLUSTER, pattern(write, 1));
        image.flush();
      }
      ImageStats stats = image.stats();
      assertEquals(file.count(Operation.SYNC) - before, stats.syncs());
      assertTrue(stats.syncs() >= WRITES, () -> "not each write was made durable: " + stats);
      assertTrue(stats.syncs() <= limit * WRITES, () -> stats.syncs() + " syncs, " + stats);
      assertEquals(WRITES, stats.commits());
    }
  }
}
