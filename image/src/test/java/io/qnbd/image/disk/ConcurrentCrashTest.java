package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Power cuts while several threads write to sectors of their own in clusters that they share, and
 * commits run all the time.
 *
 * <p>A seed gives the threads their work, not their timing: a failure may need several runs to be
 * seen again.
 */
final class ConcurrentCrashTest {
  private static final int MIB = 1 << 20;
  private static final int THREADS = 4;
  static final int CUTS_DEFAULT = 2_000;
  static final int SNAPSHOT_CUTS_DEFAULT = 3_000;
  private static final int CUTS_PER_RUN = 50;

  static Stream<ImageShape> shapes() {
    ImageShape usual = ImageShape.of(3, 4096, 16, MIB);
    return Stream.of(
        ImageShape.of(3, 512, 16, MIB / 4).withSnapshots(1),
        ImageShape.of(3, 512, 64, MIB).withBatches(20, 16),
        usual,
        usual.withBatches(3, 2).withSnapshots(1),
        usual.with(Preparation.COMPRESSED).withSnapshots(1),
        usual.with(ImageShape.Backing.QCOW2),
        ImageShape.of(2, 65536, 16, MIB).withSnapshots(1),
        ImageShape.of(3, 16384, 16, MIB / 2).withExtendedL2().withSnapshots(1),
        ImageShape.of(3, 65536, 16, MIB).withExtendedL2().with(ImageShape.Backing.QCOW2));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void losesNothingAcknowledgedToAnyThread(ImageShape shape) {
    int share = Seeds.count("qnbd.concurrentCuts", CUTS_DEFAULT) / (int) shapes().count();
    int runs = Math.max(1, (share + CUTS_PER_RUN - 1) / CUTS_PER_RUN);
    Seeds.run("ConcurrentCrashTest " + shape, runs, seed -> run(shape, seed));
  }

  private static void run(ImageShape shape, long seed) throws Exception {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    storage.slowSyncs(random.pick(List.of(0L, 50_000L, 500_000L)));
    ReadWriteLock acknowledging = new ReentrantReadWriteLock();
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    try (DiskImage image = guest.engine.open(storage);
        ExecutorService threads = Executors.newFixedThreadPool(THREADS)) {
      storage.watch(cuts.sometimes(20, CUTS_PER_RUN));
      List<CompletableFuture<Void>> writers = new ArrayList<>();
      for (int writer = 0; writer < THREADS; writer++) {
        SectorWriter work =
            new SectorWriter(image, model, writer, random.split(), acknowledging.readLock());
        writers.add(CompletableFuture.runAsync(work, threads));
      }
      for (CompletableFuture<Void> writer : writers) {
        writer.join();
      }
    }
    storage.watch(null);
    cuts.take(storage);
    cuts.verifyAll();
  }

  static Stream<ImageShape> smallShapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, MIB / 8);
    ImageShape small = ImageShape.of(3, 4096, 16, MIB / 4);
    return Stream.of(
        tiny,
        tiny.withBatches(1, 0).withSnapshots(1),
        tiny.withLazyRefcounts().withBatches(4, 8),
        tiny.with(Preparation.COMPRESSED).withBatches(2, 1),
        ImageShape.of(2, 512, 16, MIB / 8).withBatches(0, 0),
        small.withBatches(8, 1024).withSnapshots(1),
        small.withLazyRefcounts(),
        ImageShape.of(2, 4096, 16, MIB / 4),
        ImageShape.of(3, 16384, 16, MIB / 4).withExtendedL2().withBatches(2, 8));
  }

  /**
   * Snapshots come and go while two threads write, two more write, zero and trim ranges that
   * overlap, of which nobody can say what they hold, and commits run all the time.
   */
  @ParameterizedTest
  @MethodSource("smallShapes")
  void keepsSnapshotsWholeUnderLoad(ImageShape shape) {
    int share = Seeds.count("qnbd.concurrentCuts", SNAPSHOT_CUTS_DEFAULT);
    int runs = share / (int) smallShapes().count() / CUTS_PER_RUN + 1;
    Seeds.run("ConcurrentCrashTest snapshots " + shape, runs, seed -> runLoaded(shape, seed));
  }

  private static void runLoaded(ImageShape shape, long seed) throws Exception {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    storage.slowSyncs(random.pick(List.of(0L, 50_000L)));
    ReadWriteLock acknowledging = new ReentrantReadWriteLock();
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    model.describeOnly(shape.diskBytes() / 2);
    Cuts cuts = new Cuts(guest, model, random.split());
    try (DiskImage image = guest.engine.open(storage);
        ExecutorService threads = Executors.newFixedThreadPool(THREADS)) {
      storage.watch(cuts.sometimes(6, CUTS_PER_RUN));
      List<CompletableFuture<Void>> writers = new ArrayList<>();
      for (int writer = 0; writer < 2; writer++) {
        SectorWriter work =
            new SectorWriter(image, model, writer, random.split(), acknowledging.readLock());
        writers.add(CompletableFuture.runAsync(work, threads));
        Scribbler scribbler = new Scribbler(image, shape.diskBytes(), random.split());
        writers.add(CompletableFuture.runAsync(scribbler, threads));
      }
      SnapshotUser user =
          new SnapshotUser(guest, model, image, storage, random.split(), acknowledging.writeLock());
      do {
        user.step();
      } while (writers.stream().anyMatch(writer -> !writer.isDone()));
      for (CompletableFuture<Void> writer : writers) {
        writer.join();
      }
    }
    storage.watch(null);
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    assertEquals(CUTS_PER_RUN, cuts.count());
  }

  /** Writes, zeroes and trims in the disk's upper half, where others do too. */
  private record Scribbler(DiskImage image, int diskBytes, SeededRandom random)
      implements Runnable {
    @Override
    public void run() {
      try {
        for (int step = 0; step < 80; step++) {
          step();
        }
      } catch (IOException e) {
        throw new AssertionError("scribbler", e);
      }
    }

    private void step() throws IOException {
      int count = (int) random.skewed(512, diskBytes / 8);
      int at = diskBytes / 2 + random.below(diskBytes / 2 - count + 1);
      switch (random.below(6)) {
        case 5 -> {
          int cluster = image.clusterBytes();
          ByteBuffer data = ByteBuffer.wrap(Pattern.fill(random.nextLong(), cluster));
          image.writeCompressed((long) at / cluster * cluster, data);
        }
        case 0 -> image.trim(at, count);
        case 1 -> image.writeZeroes(at, count, ZeroMode.MAY_UNMAP);
        case 2 -> image.writeZeroes(at, count, ZeroMode.KEEP_ALLOCATED);
        default -> Quick.write(image, at, ByteBuffer.wrap(Pattern.fill(random.nextLong(), count)));
      }
    }
  }

  /** Writes to every {@link #THREADS}th sector, so that each cluster is everybody's. */
  private record SectorWriter(
      DiskImage image, GuestModel model, int writer, SeededRandom random, Lock acknowledging)
      implements Runnable {
    private static final int SECTOR = GuestModel.SECTOR_BYTES;

    @Override
    public void run() {
      try {
        for (int step = 0; step < 80; step++) {
          step();
        }
      } catch (IOException e) {
        throw new AssertionError("writer " + writer, e);
      }
    }

    private void step() throws IOException {
      if (random.chance(15)) {
        flush();
        return;
      }
      int stripe = random.below(model.bytes() / SECTOR / THREADS / 4);
      int at = (stripe * THREADS + writer) * SECTOR;
      boolean zero = random.chance(20);
      byte[] data = zero ? new byte[SECTOR] : Pattern.fill(random.nextLong(), SECTOR);
      model.begin(at, data);
      if (zero) {
        image.writeZeroes(at, SECTOR, ZeroMode.MAY_UNMAP);
      } else {
        Quick.write(image, at, ByteBuffer.wrap(data));
      }
      model.end(at, SECTOR);
      ByteBuffer back = ByteBuffer.allocate(SECTOR);
      Quick.read(image, at, back);
      GuestModel.assertSame(data, back.array(), "sector at " + at);
    }

    private void flush() throws IOException {
      if (!acknowledging.tryLock()) {
        image.commit();
        return;
      }
      try {
        long[] mark = model.mark();
        image.flush();
        model.acknowledged(mark);
      } finally {
        acknowledging.unlock();
      }
    }
  }
}
