package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Power cuts while snapshots of an image in use are taken, renamed, removed and reverted to: a
 * snapshot is there whole or not at all, and whatever else {@link CrashTest} asks for holds too.
 *
 * <p>The disks are small, so that thousands of cuts take seconds.
 */
final class SnapshotCrashTest {
  private static final int KIB = 1 << 10;
  static final int CUTS_DEFAULT = 36_000;
  static final int REVERT_CUTS_DEFAULT = 2_400;
  private static final int CUTS_PER_RUN = 60;

  static Stream<ImageShape> shapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 64 * KIB);
    ImageShape small = ImageShape.of(3, 4096, 16, 192 * KIB);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, 256 * KIB).withExtendedL2();
    return Stream.of(
        tiny,
        tiny.withBatches(0, 0),
        tiny.withBatches(1, 1),
        tiny.withBatches(8, 1024),
        tiny.withBatches(3, 0).withSnapshots(1),
        tiny.withLazyRefcounts(),
        tiny.withLazyRefcounts().withBatches(2, 1).withSnapshots(1),
        tiny.with(Preparation.COMPRESSED),
        tiny.with(Preparation.ZSTD).withLazyRefcounts(),
        tiny.with(Preparation.COMPRESSED).withBatches(4, 0).withLazyRefcounts(),
        tiny.with(Preparation.PREALLOCATED).withBatches(5, 1),
        tiny.with(Backing.RAW_SHORTER).withBatches(7, 0),
        ImageShape.of(3, 512, 64, 64 * KIB).withBatches(6, 16),
        ImageShape.of(3, 512, 4, 96 * KIB),
        ImageShape.of(2, 512, 16, 64 * KIB),
        ImageShape.of(2, 512, 16, 64 * KIB).withBatches(0, 0).withSnapshots(1),
        ImageShape.of(2, 512, 16, 64 * KIB).with(Preparation.COMPRESSED).withBatches(2, 1024),
        small,
        small.withBatches(1, 0),
        small.withLazyRefcounts(),
        small.with(Preparation.COMPRESSED).withSnapshots(1).withBatches(3, 1),
        small.with(Backing.QCOW2).withBatches(2, 1),
        ImageShape.of(2, 4096, 16, 192 * KIB).withBatches(4, 1),
        subclusters.withBatches(1, 0),
        subclusters.withLazyRefcounts().with(Backing.RAW_SHORTER),
        subclusters.with(Preparation.COMPRESSED).withSnapshots(1).withBatches(3, 1));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void aSnapshotIsThereWholeOrNotAtAll(ImageShape shape) {
    int share = Seeds.count("qnbd.snapshotCuts", CUTS_DEFAULT) / (int) shapes().count();
    int runs = share / CUTS_PER_RUN + 1;
    Seeds.run("SnapshotCrashTest " + shape, runs, seed -> cutOften(shape, seed));
  }

  private static void cutOften(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    try (DiskImage image = guest.engine.open(storage)) {
      Workload.Mix mix = shape.mix(random, 16 * KIB);
      Workload workload = new Workload(random, image, model, mix);
      SnapshotUser user =
          new SnapshotUser(guest, model, image, storage, random, new ReentrantLock());
      for (int step = 0; step < 400 && cuts.count() < CUTS_PER_RUN * 5 / 6; step++) {
        if (random.chance(20)) {
          storage.watch(cuts.sometimes(25, CUTS_PER_RUN * 5 / 6));
          user.step();
        } else {
          storage.watch(cuts.sometimes(10, CUTS_PER_RUN * 5 / 6));
          workload.step();
        }
      }
      storage.watch(cuts.sometimes(40, CUTS_PER_RUN));
    }
    storage.watch(null);
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    assertEquals(CUTS_PER_RUN, cuts.count());
  }

  static Stream<ImageShape> revertedShapes() {
    return shapes().filter(shape -> shape.refcountBits() > 1 && shape.snapshots() == 1);
  }

  /** The disk is as it was or as the snapshot has it. */
  @ParameterizedTest
  @MethodSource("revertedShapes")
  void aRevertIsDoneWholeOrNotAtAll(ImageShape shape) {
    int share =
        Seeds.count("qnbd.revertCuts", REVERT_CUTS_DEFAULT) / (int) revertedShapes().count();
    int runs = share / CUTS_PER_RUN + 1;
    Seeds.run("SnapshotCrashTest revert " + shape, runs, seed -> revert(shape, seed));
  }

  private static void revert(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    cuts.mayHold(guest.snapshots.contents("snapshot 0"));
    storage.watch(cuts.sometimes(80, CUTS_PER_RUN));
    try (Qcow2Image image = (Qcow2Image) guest.engine.open(storage)) {
      image.revertTo("snapshot 0");
    }
    Rebuild.rebuild(storage, ProgressListener.NONE);
    storage.watch(null);
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    assertEquals(CUTS_PER_RUN, cuts.count());
  }
}
