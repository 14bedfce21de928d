package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.Compaction;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Images that are compacted while they are in use, with power cuts in the midst of it. */
final class CompactTest {
  private static final int KIB = 1 << 10;
  private static final int CUTS_DEFAULT = 1_400;
  private static final int CUTS_PER_RUN = 50;

  static Stream<ImageShape> shapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 192 * KIB);
    ImageShape usual = ImageShape.of(3, 4096, 16, 768 * KIB + 1536);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, 768 * KIB).withExtendedL2();
    return Stream.of(
        tiny,
        tiny.withBatches(0, 0),
        tiny.withBatches(3, 1).withSnapshots(2),
        tiny.withLazyRefcounts().withSnapshots(1),
        tiny.with(Preparation.COMPRESSED).withSnapshots(1),
        tiny.with(Preparation.PREALLOCATED).withBatches(5, 1),
        ImageShape.of(3, 512, 64, 512 * KIB).with(Preparation.PREALLOCATED).withBatches(6, 16),
        ImageShape.of(3, 512, 1, 128 * KIB),
        ImageShape.of(2, 512, 16, 128 * KIB).withSnapshots(1),
        usual,
        usual.with(Preparation.PREALLOCATED).withSnapshots(1),
        usual.with(Backing.QCOW2).withBatches(2, 2),
        usual.with(Place.LUKS),
        usual.with(Place.LUKS).with(Preparation.PREALLOCATED).withSnapshots(1).withBatches(3, 1),
        subclusters,
        subclusters.withBatches(2, 1).withSnapshots(1),
        subclusters.with(Backing.RAW_SHORTER),
        ImageShape.of(2, 4096, 16, 512 * KIB).with(Backing.RAW_SHORTER));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void losesNothingWhereverThePowerIsCut(ImageShape shape) {
    int share = Seeds.count("qnbd.compactCuts", CUTS_DEFAULT) / (int) shapes().count();
    Seeds.run("CompactTest " + shape, share / CUTS_PER_RUN + 1, seed -> cutOften(shape, seed));
  }

  private static void cutOften(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    try (DiskImage image = guest.engine.open(storage)) {
      Workload workload =
          new Workload(random, image, model, new Workload.Mix(5, 10, 40, 5, 32 * KIB));
      for (int step = 0; step < 6; step++) {
        workload.run(12);
        storage.watch(cuts.anywhere(20, (step + 1) * CUTS_PER_RUN / 6));
        Compaction done = image.compact(ProgressListener.NONE);
        storage.watch(null);
        assertEquals(storage.length(), done.fileBytes());
        assertTrue(done.fileBytes() <= done.oldFileBytes(), done::toString);
        workload.checkAll();
      }
    }
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    RawQcow2 left = guest.engine.oracle(storage.contents());
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(
        model.latest(0, model.bytes()), left.disk(guest.engine.base()), "disk at rest");
    guest.checkSnapshots(left);
  }

  /** Everything at the end of the file moves: data, tables, refcount blocks. */
  @Test
  void theFileEndsWithWhatIsInUse() throws IOException {
    List<ImageShape> shapes =
        List.of(
            ImageShape.of(3, 512, 16, 1024 * KIB),
            ImageShape.of(3, 4096, 16, 1024 * KIB),
            ImageShape.of(3, 4096, 16, 1024 * KIB).with(Place.LUKS),
            ImageShape.of(3, 16384, 16, 1024 * KIB).withExtendedL2());
    for (ImageShape shape : shapes) {
      MemoryStorage file = shape.make(new byte[0]);
      long emptyBytes = file.length();
      Engine engine = new Engine(shape, new SeededRandom(1));
      byte[] kept = Pattern.fill(7, 100 * KIB);
      try (DiskImage image = engine.open(file)) {
        image.write(0, ByteBuffer.wrap(Pattern.fill(8, shape.diskBytes())));
        image.trim(0, 896 * KIB);
        image.write(900 * KIB, ByteBuffer.wrap(kept));
        Compaction done = image.compact(ProgressListener.NONE);
        assertEquals(0, done.stayedClusters(), done::toString);
        assertTrue(done.movedClusters() > 100 * KIB / shape.clusterBytes(), done::toString);
        assertTrue(done.fileBytes() < emptyBytes + 256 * KIB, done::toString);
        byte[] found = new byte[kept.length];
        image.read(900 * KIB, ByteBuffer.wrap(found));
        GuestModel.assertSame(kept, found, "what was moved");
      }
      RawQcow2 left = engine.oracle(file);
      assertTrue(left.check().clean(), left.check()::toString);
    }
  }

  /**
   * Every thread has sectors of its own, in clusters that it shares with the others. In the disk's
   * second half somebody makes holes meanwhile.
   */
  @Test
  void guestsGoOnMeanwhile() {
    Seeds.run(
        "compact in use",
        Seeds.count("qnbd.liveCompacts", 4),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          int threads = 3;
          ImageShape shape =
              ImageShape.of(3, 4096, 16, 1024 * KIB)
                  .withBatches(random.below(20), random.below(20))
                  .with(random.chance(50) ? Preparation.PREALLOCATED : Preparation.EMPTY)
                  .with(seed % 3 == 0 ? Place.LUKS : Place.HERE);
          MemoryStorage file = shape.make(new byte[0]);
          byte[] disk = new byte[shape.diskBytes()];
          AtomicBoolean over = new AtomicBoolean();
          Engine engine = new Engine(shape, random);
          try (DiskImage image = engine.open(file);
              ExecutorService pool = Executors.newFixedThreadPool(threads)) {
            List<CompletableFuture<Void>> guests = new ArrayList<>();
            for (int thread = 0; thread < threads; thread++) {
              int mine = thread;
              guests.add(
                  CompletableFuture.runAsync(
                      () -> use(image, mine, threads, disk, over, seed), pool));
            }
            try {
              long moved = 0;
              for (int times = 0; times < 25; times++) {
                makeHoles(image, disk, random);
                moved += image.compact(ProgressListener.NONE).movedClusters();
              }
              assertTrue(moved > 50, "moved " + moved);
            } finally {
              over.set(true);
            }
            for (CompletableFuture<Void> one : guests) {
              one.join();
            }
            image.compact(ProgressListener.NONE);
          }
          RawQcow2 left = engine.oracle(file);
          assertTrue(left.check().clean(), left.check()::toString);
          GuestModel.assertSame(disk, left.disk(null), "disk");
        });
  }

  private static void makeHoles(DiskImage image, byte[] disk, SeededRandom random)
      throws IOException {
    for (int times = 0; times < 30; times++) {
      int at = disk.length / 2 + random.below(disk.length / 8192) * 4096;
      if (random.chance(50)) {
        image.trim(at, 4096);
        Arrays.fill(disk, at, at + 4096, (byte) 0);
      } else {
        byte[] data = Pattern.fill(random.nextLong(), 4096);
        image.write(at, ByteBuffer.wrap(data));
        System.arraycopy(data, 0, disk, at, 4096);
      }
    }
  }

  private static void use(
      DiskImage image, int mine, int threads, byte[] disk, AtomicBoolean over, long seed) {
    SeededRandom random = new SeededRandom(seed + mine);
    int sectors = disk.length / 2 / 512 / threads;
    try {
      while (!over.get()) {
        int sector = random.below(sectors) * threads + mine;
        byte[] data = new byte[512];
        int kind = random.below(100);
        if (kind < 40) {
          image.read(sector * 512L, ByteBuffer.wrap(data));
          for (int i = 0; i < 512; i++) {
            assertEquals(disk[sector * 512 + i], data[i], "sector " + sector);
          }
          continue;
        }
        if (kind < 60) {
          data = Pattern.fill(random.nextLong(), 512);
        }
        if (kind == 99) {
          image.flush();
        }
        image.write(sector * 512L, ByteBuffer.wrap(data));
        System.arraycopy(data, 0, disk, sector * 512, 512);
      }
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }
}
