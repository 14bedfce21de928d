package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.DiskImage;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The engine against a plain array, over the kinds of images that there are. */
final class ModelTest {
  private static final int MIB = 1 << 20;

  static Stream<ImageShape> shapes() {
    ImageShape small = ImageShape.of(3, 512, 16, MIB);
    ImageShape usual = ImageShape.of(3, 4096, 16, 3 * MIB + 1536);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, 3 * MIB + 1536).withExtendedL2();
    return Stream.of(
        small,
        small.with(Preparation.PREALLOCATED),
        small.with(Backing.RAW_SHORTER).withL2CacheBytes(65536),
        small.withSnapshots(2),
        small.with(Preparation.COMPRESSED).withSnapshots(1),
        ImageShape.of(2, 512, 16, MIB),
        ImageShape.of(3, 512, 1, 2 * MIB),
        ImageShape.of(3, 512, 64, 3 * MIB),
        ImageShape.of(3, 512, 64, 6 * MIB).withL2CacheBytes(65536),
        usual,
        usual.withBatches(0, 0),
        usual.withBatches(3, 1),
        usual.withBatches(3, 1).withSnapshots(2),
        usual.with(Preparation.PREALLOCATED).withSnapshots(1),
        usual.with(Preparation.COMPRESSED),
        usual.with(Preparation.COMPRESSED).withSnapshots(2).withBatches(0, 0),
        usual.with(Preparation.ZSTD).withSnapshots(1),
        ImageShape.of(3, 4096, 1, MIB).with(Preparation.ZSTD),
        ImageShape.of(3, 65536, 4, 8 * MIB).with(Preparation.ZSTD),
        usual.with(Backing.QCOW2).withSnapshots(1),
        usual.with(Backing.RAW_LONGER),
        usual.with(Place.DATA_FILE),
        usual.with(Place.DATA_FILE).with(Backing.RAW_SHORTER),
        usual.with(Place.RAW_DATA_FILE),
        usual.with(Place.RAW_DATA_FILE).with(Preparation.PREALLOCATED),
        usual.with(Place.LUKS),
        ImageShape.of(3, 16384, 16, 3 * MIB).withExtendedL2().with(Place.LUKS).withSnapshots(1),
        usual.with(Place.LUKS).withSnapshots(2).withBatches(3, 1),
        usual.with(Place.LUKS).with(Preparation.COMPRESSED).with(Backing.QCOW2),
        ImageShape.of(2, 4096, 16, 3 * MIB + 512).with(Backing.RAW_SHORTER),
        ImageShape.of(2, 4096, 16, 3 * MIB).withSnapshots(2),
        ImageShape.of(3, 4096, 2, 3 * MIB).withSnapshots(1),
        ImageShape.of(3, 65536, 16, 8 * MIB + 512),
        ImageShape.of(3, 65536, 1, 8 * MIB).with(Backing.RAW_SHORTER),
        ImageShape.of(3, 65536, 8, 8 * MIB).withSnapshots(1).with(Preparation.COMPRESSED),
        ImageShape.of(2, 65536, 16, 8 * MIB + 100).with(Backing.QCOW2),
        ImageShape.of(3, 2 * MIB, 16, 24 * MIB + 512).withSnapshots(1),
        subclusters,
        subclusters.with(Preparation.PREALLOCATED),
        subclusters.with(Preparation.COMPRESSED).withSnapshots(1),
        subclusters.with(Backing.RAW_SHORTER).withSnapshots(2).withBatches(3, 1),
        subclusters.with(Backing.QCOW2).withBatches(0, 0),
        subclusters.with(Backing.RAW_LONGER).withLazyRefcounts().withL2CacheBytes(65536),
        ImageShape.of(3, 65536, 1, 8 * MIB + 512).withExtendedL2().with(Backing.RAW_SHORTER),
        ImageShape.of(3, 65536, 64, 8 * MIB).withExtendedL2().withSnapshots(2),
        ImageShape.of(3, 2 * MIB, 16, 24 * MIB + 512).withExtendedL2().withSnapshots(1));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void readsWhatWasWritten(ImageShape shape) {
    Seeds.run("ModelTest " + shape, Seeds.count("qnbd.models", 3), seed -> run(shape, seed));
  }

  private static void run(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = new Guest(shape, random);
    for (int session = 0; session < 4; session++) {
      try (DiskImage image = guest.engine.open(guest.file)) {
        assertEquals(shape.diskBytes(), image.virtualBytes());
        Workload.Mix mix = shape.mix(random, Math.min(8 * MIB, shape.diskBytes() / 2));
        Workload workload = new Workload(random, image, guest.model, mix);
        workload.checkAll();
        workload.run(60);
        workload.checkAll();
      }
      guest.check();
      if (session < shape.snapshots()) {
        guest.takeSnapshot();
        guest.check();
      }
    }
  }
}
