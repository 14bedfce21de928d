package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;

/** Writers against the removal of a snapshot that shares their clusters. */
final class SnapshotRaceTest {
  private static final int CLUSTER = 512;
  private static final int CLUSTERS = 2048;
  private static final int THREADS = 3;

  /** A cluster may become the guest's alone between two looks of a writer at its entry. */
  @Test
  void aClusterMayBecomeTheGuestsOwnWhileItIsWrittenTo() throws Exception {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, CLUSTERS * CLUSTER);
    Engine engine = new Engine(shape, new SeededRandom(1));
    MemoryStorage file = shape.make(new byte[0]);
    byte[] expected = new byte[CLUSTERS * CLUSTER];
    AtomicBoolean over = new AtomicBoolean();
    try (DiskImage image = engine.open(file);
        ExecutorService threads = Executors.newFixedThreadPool(THREADS)) {
      image.write(0, ByteBuffer.wrap(expected));
      List<CompletableFuture<Void>> writers = new ArrayList<>();
      for (int thread = 0; thread < THREADS; thread++) {
        int first = thread;
        writers.add(CompletableFuture.runAsync(() -> write(image, first, expected, over), threads));
      }
      try {
        for (int round = 0; round < 60 && writers.stream().noneMatch(w -> w.isDone()); round++) {
          image.snapshots().create("s");
          image.snapshots().delete("s");
        }
      } finally {
        over.set(true);
      }
      for (CompletableFuture<Void> writer : writers) {
        writer.join();
      }
    }
    RawQcow2 left = new RawQcow2(file);
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(expected, left.disk(null), "disk");
  }

  /** Each thread has clusters of its own, in tables that all share. */
  private static void write(DiskImage image, int first, byte[] expected, AtomicBoolean over) {
    try {
      SeededRandom random = new SeededRandom(first);
      while (!over.get()) {
        int cluster = random.below(CLUSTERS / THREADS) * THREADS + first;
        byte[] data = Pattern.fill(random.nextLong(), CLUSTER);
        image.write((long) cluster * CLUSTER, ByteBuffer.wrap(data));
        System.arraycopy(data, 0, expected, cluster * CLUSTER, CLUSTER);
      }
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }
}
