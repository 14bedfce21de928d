package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.GatedStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.io.RecordingStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** A cluster that a guest gave up: when it may be written to again, and that it is. */
final class ReuseTest {
  private static final int CLUSTER = 65536;
  private static final int DISK = 2 << 20;
  private static final ImageShape SHAPE = ImageShape.of(3, CLUSTER, 16, DISK);

  private static ByteBuffer pattern(long stamp, int clusters) {
    return ByteBuffer.wrap(Pattern.fill(stamp, clusters * CLUSTER));
  }

  private static MemoryStorage imageWithOneCluster(Engine engine) throws IOException {
    MemoryStorage file = SHAPE.make(new byte[0]);
    try (DiskImage image = engine.open(file)) {
      image.write(0, pattern(0xaa, 1));
    }
    return file;
  }

  /** Nothing is written into a freed cluster before the entry without it is durable. */
  @ParameterizedTest
  @ValueSource(ints = {0, 1, 1022})
  void writesNothingIntoAFreedClusterBeforeItsRemovalIsDurable(int refBatch) throws IOException {
    Engine engine = new Engine(SHAPE.withBatches(refBatch, 0), new SeededRandom(1));
    MemoryStorage file = imageWithOneCluster(engine);
    RawQcow2 before = new RawQcow2(file);
    long freed = before.hostOffset(0);
    long entry = before.l2EntryOffset(0);
    RecordingStorage storage = new RecordingStorage(file);
    try (DiskImage image = engine.open(storage)) {
      for (int round = 1; round <= 3; round++) {
        image.writeZeroes(0, CLUSTER, ZeroMode.MAY_UNMAP);
        image.write(16L * CLUSTER * (round % 2), pattern(round, 1));
        image.write((long) round * CLUSTER, pattern(0xbb + round, 2));
      }
      image.flush();
      image.write(12 * CLUSTER, pattern(0xcc, 1));
    }
    List<RecordingStorage.Entry> entries = storage.entries();
    int removed = first(entries, 0, done -> done.writesInto(entry, entry + 8));
    int durable = first(entries, removed, done -> done.operation() == Operation.SYNC);
    int reused = first(entries, 0, done -> done.writesInto(freed, freed + CLUSTER));
    assertTrue(removed < durable && durable < reused, () -> "freed " + freed + ": " + entries);
    assertTrue(reused < entries.size(), "it is used again in the end");
    assertTrue(new RawQcow2(file).check().clean());
  }

  private interface Search {
    boolean matches(RecordingStorage.Entry entry);
  }

  /** The index of the first match; the size where there is none. */
  private static int first(List<RecordingStorage.Entry> entries, int from, Search search) {
    int index = from;
    while (index < entries.size() && !search.matches(entries.get(index))) {
      index++;
    }
    return index;
  }

  /** Zeroes over a durable cluster, then a write elsewhere, and power cuts at every operation. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void anOverwrittenClusterKeepsItsBytesAtEveryCut(boolean lazy) throws IOException {
    for (int refBatch : new int[] {0, 1, 1022}) {
      ImageShape shape = SHAPE.withBatches(refBatch, refBatch);
      SeededRandom random = new SeededRandom(refBatch);
      Guest guest = new Guest(lazy ? shape.withLazyRefcounts() : shape, random);
      CrashStorage storage = new CrashStorage(guest.file);
      GuestModel model = guest.model;
      Cuts cuts = new Cuts(guest, model, random.split());
      try (DiskImage image = guest.engine.open(storage)) {
        Workload guestWork =
            new Workload(random, image, model, new Workload.Mix(0, 0, 0, 0, CLUSTER));
        guestWork.write(0, Pattern.fill(0xaa, CLUSTER));
        long[] mark = model.mark();
        image.flush();
        model.acknowledged(mark);
        storage.watch(cuts.anywhere(75, 400));
        guestWork.zero(0, CLUSTER, ZeroMode.MAY_UNMAP);
        guestWork.write(16 * CLUSTER, Pattern.fill(0xbb, CLUSTER));
        guestWork.trim(16 * CLUSTER, CLUSTER);
        guestWork.write(17 * CLUSTER, Pattern.fill(0xcc, 2 * CLUSTER));
        image.flush();
        guestWork.write(20 * CLUSTER, Pattern.fill(0xdd, CLUSTER));
      }
      storage.watch(null);
      cuts.verifyAll();
      assertTrue(cuts.count() >= 20, "cuts: " + cuts.count());
    }
  }

  /** QEMU up to 10.0.10 lost the refcount of a cluster here. */
  enum Removal {
    TRIM,
    ZEROES_UNMAPPED,
    ZEROES_ALLOCATED;

    void run(DiskImage image) throws IOException {
      switch (this) {
        case TRIM -> image.trim(0, CLUSTER);
        case ZEROES_UNMAPPED -> image.writeZeroes(0, CLUSTER, ZeroMode.MAY_UNMAP);
        case ZEROES_ALLOCATED -> image.writeZeroes(0, CLUSTER, ZeroMode.KEEP_ALLOCATED);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Removal.class)
  void aRemovalWaitsForTheWriteInFlightToTheSameCluster(Removal removal) throws Exception {
    removeDuringAWrite(removal, false);
  }

  @ParameterizedTest
  @EnumSource(Removal.class)
  void aRemovalWaitsForTheWriteInFlightToAClusterThatReadsAsZeroes(Removal removal)
      throws Exception {
    removeDuringAWrite(removal, true);
  }

  private static void removeDuringAWrite(Removal removal, boolean zeroed) throws Exception {
    Engine engine = new Engine(SHAPE, new SeededRandom(1));
    MemoryStorage file = SHAPE.make(new byte[0]);
    if (zeroed) {
      try (DiskImage image = engine.open(file)) {
        image.write(0, pattern(1, 1));
        image.writeZeroes(0, CLUSTER, ZeroMode.KEEP_ALLOCATED);
      }
    }
    GatedStorage storage = new GatedStorage(file);
    try (DiskImage image = engine.open(storage);
        ExecutorService threads = Executors.newFixedThreadPool(1)) {
      // Data of a whole cluster: counts and tables are written in smaller pieces.
      storage.close((_, bytes) -> bytes == CLUSTER);
      CompletableFuture<Void> write = run(threads, () -> image.write(0, pattern(2, 1)));
      storage.awaitArrival();
      CompletableFuture<Void> gone = new CompletableFuture<>();
      Thread remover =
          Thread.ofPlatform()
              .start(() -> {
                try {
                  removal.run(image);
                  gone.complete(null);
                } catch (IOException | RuntimeException | Error e) {
                  gone.completeExceptionally(e);
                }
              });
      while (remover.isAlive() && remover.getState() != Thread.State.WAITING) {
        Thread.sleep(1);
      }
      boolean waited = remover.isAlive();
      assertFalse(write.isDone(), "the write passed the gate");
      storage.open();
      write.get(30, TimeUnit.SECONDS);
      gone.get(30, TimeUnit.SECONDS);
      assertTrue(waited, "did not wait for the write");
      image.flush();
      // What was freed, if anything was freed too early, is overwritten now.
      image.write(4 * CLUSTER, pattern(3, 4));
    }
    RawQcow2 left = new RawQcow2(file);
    assertEquals(List.of(), left.check().corruptions());
    assertEquals(0, left.check().leaks());
    byte[] expected = new byte[DISK];
    System.arraycopy(Pattern.fill(3, 4 * CLUSTER), 0, expected, 4 * CLUSTER, 4 * CLUSTER);
    GuestModel.assertSame(expected, left.disk(null), "disk");
  }

  /** A quick read holds no range: what it has read of a cluster that went meanwhile is no good. */
  @Test
  void aQuickReadNeverSeesAClusterThatWasReusedUnderIt() throws Exception {
    Engine engine = new Engine(SHAPE, new SeededRandom(1));
    GatedStorage storage = new GatedStorage(SHAPE.make(new byte[0]));
    try (DiskImage image = engine.open(storage);
        ExecutorService threads = Executors.newFixedThreadPool(1)) {
      image.write(0, pattern(1, 1));
      image.flush();
      storage.closeToTries();
      ByteBuffer target = ByteBuffer.allocateDirect(CLUSTER);
      CompletableFuture<DiskImage.Attempt> read = new CompletableFuture<>();
      CompletableFuture<Void> running = run(threads, () -> read.complete(image.tryRead(0, target)));
      storage.awaitArrival();
      image.trim(0, CLUSTER);
      image.flush();
      image.write(4 * CLUSTER, pattern(2, 1));
      storage.open();
      running.get(30, TimeUnit.SECONDS);
      assertEquals(DiskImage.Attempt.WOULD_BLOCK, read.get());
      assertEquals(CLUSTER, target.remaining());
    }
  }

  private interface Request {
    void run() throws IOException;
  }

  private static CompletableFuture<Void> run(ExecutorService threads, Request request) {
    return CompletableFuture.runAsync(
        () -> {
          try {
            request.run();
          } catch (IOException e) {
            throw new AssertionError(e);
          }
        },
        threads);
  }

  /** QEMU finds the hole again only after the image was opened again. */
  @ParameterizedTest
  @ValueSource(ints = {0, 1, 1024})
  void aHoleIsUsedAgainInTheSameSession(int refReserve) throws IOException {
    Engine engine = new Engine(SHAPE.withBatches(1022, refReserve), new SeededRandom(1));
    MemoryStorage file = SHAPE.make(new byte[0]);
    try (DiskImage image = engine.open(file)) {
      for (int cluster = 0; cluster < 3; cluster++) {
        image.write((long) cluster * CLUSTER, pattern(cluster, 1));
      }
      image.flush();
      long hole = new RawQcow2(file).hostOffset(CLUSTER);
      image.trim(CLUSTER, CLUSTER);
      image.flush();
      image.write(8 * CLUSTER, pattern(8, 2));
      image.write(12 * CLUSTER, pattern(12, 1));
      image.flush();
      RawQcow2 now = new RawQcow2(file);
      assertNotEquals(-1, hole);
      assertEquals(hole, now.hostOffset(12 * CLUSTER));
      assertEquals(-1, now.hostOffset(CLUSTER));
      assertEquals(1, image.stats().reused());
    }
    assertTrue(new RawQcow2(file).check().clean());
  }

  /** The same by counts: what is freed is handed out without another refcount write. */
  @Test
  void aHoleIsUsedAgainWithoutARefcountWrite() throws IOException {
    Engine engine = new Engine(SHAPE, new SeededRandom(1));
    try (DiskImage image = engine.open(SHAPE.make(new byte[0]))) {
      image.write(0, pattern(0, 4));
      image.flush();
      long writes = image.stats().refcountWrites();
      for (int round = 0; round < 20; round++) {
        image.trim(0, 4L * CLUSTER);
        image.flush();
        image.write(0, pattern(round, 4));
        image.flush();
      }
      assertEquals(80, image.stats().cancelled());
      assertEquals(80, image.stats().reused());
      assertEquals(writes, image.stats().refcountWrites());
    }
  }
}
