package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.PowerCut;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Power cuts at any operation, between any two and inside one: the image opens, leaks at most,
 * holds in each sector the last acknowledged bytes or later ones, and its snapshots are untouched.
 */
final class CrashTest {
  private static final int MIB = 1 << 20;
  static final int CUTS_DEFAULT = 12_000;
  private static final int CUTS_PER_RUN = 60;

  static Stream<ImageShape> shapes() {
    ImageShape small = ImageShape.of(3, 512, 16, MIB / 4);
    ImageShape usual = ImageShape.of(3, 4096, 16, MIB);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, MIB / 2).withExtendedL2();
    return Stream.of(
        small,
        small.with(Backing.RAW_SHORTER).withBatches(5, 3),
        small.withSnapshots(2),
        small.withSnapshots(1).withBatches(3, 0),
        small.with(Preparation.COMPRESSED).withSnapshots(1),
        small.with(Preparation.PREALLOCATED),
        ImageShape.of(3, 512, 64, 2 * MIB).withBatches(20, 16),
        ImageShape.of(3, 512, 64, 5 * MIB / 2).with(Preparation.NEARLY_FULL).withBatches(20, 16),
        ImageShape.of(3, 512, 64, 5 * MIB / 2).with(Preparation.NEARLY_FULL).withBatches(0, 0),
        ImageShape.of(3, 512, 1, MIB / 2),
        ImageShape.of(2, 512, 16, MIB / 4).withSnapshots(1),
        usual,
        usual.withBatches(0, 0),
        usual.withBatches(3, 1),
        usual.withSnapshots(1),
        usual.withSnapshots(2).withBatches(0, 0),
        usual.withSnapshots(2).withBatches(4, 8),
        usual.with(Preparation.PREALLOCATED).withSnapshots(1),
        usual.with(Preparation.COMPRESSED).withBatches(4, 4),
        usual.with(Preparation.COMPRESSED).withSnapshots(2),
        usual.with(Preparation.ZSTD).withSnapshots(2),
        ImageShape.of(3, 4096, 2, MIB).with(Preparation.ZSTD),
        usual.with(Backing.QCOW2).withSnapshots(1),
        usual.with(Backing.RAW_LONGER).withBatches(3, 3),
        usual.with(Place.DATA_FILE),
        usual.with(Place.DATA_FILE).with(Backing.RAW_SHORTER),
        usual.with(Place.RAW_DATA_FILE),
        usual.with(Place.RAW_DATA_FILE).with(Preparation.PREALLOCATED),
        usual.with(Place.LUKS),
        ImageShape.of(3, 16384, 16, MIB).withExtendedL2().with(Place.LUKS).withSnapshots(1),
        usual.with(Place.LUKS).withSnapshots(2).withBatches(3, 1),
        usual.with(Place.LUKS).with(Preparation.COMPRESSED).with(Backing.QCOW2),
        ImageShape.of(2, 4096, 16, 2 * MIB).with(Backing.RAW_SHORTER),
        ImageShape.of(2, 4096, 16, MIB).withSnapshots(2).withBatches(2, 2),
        ImageShape.of(3, 4096, 1, MIB),
        ImageShape.of(3, 4096, 2, 5 * MIB / 2).withSnapshots(2),
        ImageShape.of(3, 65536, 16, 2 * MIB).withSnapshots(1),
        subclusters,
        subclusters.withBatches(0, 0).with(Preparation.PREALLOCATED),
        subclusters.withSnapshots(2).withBatches(3, 1),
        subclusters.with(Backing.RAW_SHORTER).withBatches(4, 4),
        subclusters.with(Backing.QCOW2).withSnapshots(1),
        subclusters.with(Preparation.COMPRESSED).withSnapshots(1).withBatches(2, 2),
        subclusters.withLazyRefcounts().with(Backing.RAW_LONGER),
        ImageShape.of(3, 65536, 1, MIB / 2 + 512).withExtendedL2().withBatches(3, 3),
        ImageShape.of(3, 2 * MIB, 16, 5 * MIB / 2).withExtendedL2().with(Backing.RAW_SHORTER));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void losesNothingAcknowledgedAndCorruptsNothing(ImageShape shape) {
    int share = Seeds.count("qnbd.cuts", CUTS_DEFAULT) / (int) shapes().count();
    boolean large = shape.clusterBytes() >= MIB; // each cut of it takes as long as ten others
    int runs = Math.max(1, (share / (large ? 10 : 1) + CUTS_PER_RUN - 1) / CUTS_PER_RUN);
    Seeds.run("CrashTest " + shape, runs, seed -> cutOften(shape, seed));
  }

  private static void cutOften(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    try (DiskImage image = guest.engine.open(storage)) {
      storage.watch(cuts.sometimes(40, CUTS_PER_RUN * 3 / 4));
      Workload workload =
          new Workload(
              random, image, model, shape.mix(random, Math.min(256 * 1024, shape.diskBytes() / 2)));
      for (int step = 0; step < 400 && cuts.count() < CUTS_PER_RUN * 3 / 4; step++) {
        workload.step();
      }
      storage.watch(cuts.sometimes(60, CUTS_PER_RUN));
    }
    storage.watch(null);
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    assertEquals(CUTS_PER_RUN, cuts.count());
  }

  /** The same by an exception in the engine's way: what it does after the cut must not matter. */
  @ParameterizedTest
  @MethodSource("shapes")
  void survivesACutThatItSees(ImageShape shape) {
    Seeds.run(
        "CrashTest seen " + shape, Seeds.count("qnbd.seenCuts", 4), seed -> cutOnce(shape, seed));
  }

  private static void cutOnce(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    storage.cutAt(random.skewed(1, 200));
    try (DiskImage image = guest.engine.open(storage)) {
      Workload.Mix mix = shape.mix(random, 128 * 1024);
      new Workload(random, image, model, mix).run(60);
    } catch (PowerCut e) {
      assertTrue(storage.isCut(), "a cut that nobody made");
    } catch (IOException e) {
      // What waited for a commit gets an exception of its own around the cut.
      if (!storage.isCut()) {
        throw e;
      }
    }
    for (int i = 0; i < 10; i++) {
      cuts.take(storage);
    }
    cuts.verifyAll();
  }
}
