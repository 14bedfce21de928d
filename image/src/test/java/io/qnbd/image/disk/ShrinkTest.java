package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
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
import java.util.Arrays;
import java.util.Objects;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Disks that shrink, and grow again, with power cuts in the midst of it. */
final class ShrinkTest {
  private static final int KIB = 1 << 10;
  private static final int CUTS_DEFAULT = 800;
  private static final int CUTS_PER_RUN = 40;

  static Stream<ImageShape> shapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 160 * KIB);
    ImageShape usual = ImageShape.of(3, 4096, 16, 512 * KIB + 1536);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, 512 * KIB).withExtendedL2();
    return Stream.of(
        tiny,
        tiny.withBatches(0, 0),
        tiny.withBatches(3, 1).withSnapshots(2),
        tiny.withLazyRefcounts().withSnapshots(1),
        tiny.with(Preparation.COMPRESSED).withSnapshots(1),
        tiny.with(Backing.RAW_LONGER).withBatches(3, 0),
        ImageShape.of(3, 512, 64, 256 * KIB).withBatches(6, 16),
        ImageShape.of(2, 512, 16, 96 * KIB),
        usual.with(Preparation.PREALLOCATED).withSnapshots(1),
        usual.with(Backing.QCOW2),
        usual.with(Place.LUKS).withSnapshots(1),
        tiny.with(Place.DATA_FILE).withBatches(3, 1),
        usual.with(Place.DATA_FILE),
        tiny.with(Place.RAW_DATA_FILE),
        usual.with(Place.RAW_DATA_FILE).with(Preparation.PREALLOCATED),
        subclusters.withSnapshots(1),
        subclusters.withBatches(1, 1).with(Backing.RAW_LONGER));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void aPowerCutLeavesTheOldSizeOrTheNew(ImageShape shape) {
    int share = Seeds.count("qnbd.shrinkCuts", CUTS_DEFAULT) / (int) shapes().count();
    Seeds.run("ShrinkTest " + shape, share / CUTS_PER_RUN + 1, seed -> cutOften(shape, seed));
  }

  private static void cutOften(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    int bytes = shape.diskBytes();
    try (DiskImage image = guest.engine.open(storage)) {
      Workload workload = new Workload(random, image, model, Workload.Mix.random(random, 16 * KIB));
      while (cuts.count() < CUTS_PER_RUN - 2 && bytes > 2048) {
        workload.run(3);
        image.flush();
        int next = (int) (bytes - random.skewed(1, bytes / 512 - 2) * 512);
        storage.watch(cuts.anywhere(25, CUTS_PER_RUN));
        shrink(image, model, cuts, bytes, next);
        storage.watch(null);
        bytes = next;
        if (random.chance(50)) {
          int more = (int) Math.min(shape.diskBytes(), bytes + random.skewed(1, 300) * 512);
          cuts.mayHave(bytes, more);
          image.resize(more);
          cuts.mayHave(more, more);
          bytes = more;
          workload.checkAll();
        }
        workload = new Workload(random, image, model, Workload.Mix.random(random, 16 * KIB));
      }
    }
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    RawQcow2 left = guest.engine.oracle(storage.contents());
    assertTrue(left.check().clean(), left.check()::toString);
    guest.checkSnapshots(left);
  }

  private static void shrink(DiskImage image, GuestModel model, Cuts cuts, int from, int to)
      throws IOException {
    cuts.mayShrink(to, from);
    model.begin(to, new byte[from - to]); // the tail, to whoever finds the new size
    ((Qcow2Image) image).shrink(to);
    assertEquals(to, image.virtualBytes());
    model.end(to, from - to);
    cuts.mayHave(to, to);
  }

  @Test
  void givesTheSpaceBack() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 256 * KIB).with(Preparation.PREALLOCATED);
    MemoryStorage file = shape.make(new byte[0]);
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(file)) {
      ((Qcow2Image) image).shrink(4096);
    }
    assertTrue(new RawQcow2(file).check().clean());
    assertTrue(file.length() <= 24 * KIB, "length " + file.length());
  }

  @ParameterizedTest
  @EnumSource(names = {"DATA_FILE", "RAW_DATA_FILE"})
  void cutsADataFileOff(Place place) throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 256 * KIB).with(place);
    Guest guest = Guest.withPast(shape, new SeededRandom(1));
    byte[] kept = Arrays.copyOf(guest.model.latest(0, shape.diskBytes()), 5632);
    try (DiskImage image = guest.engine.open(guest.file)) {
      image.write(128 * KIB, ByteBuffer.wrap(new byte[] {1}));
      ((Qcow2Image) image).shrink(5632);
    }
    RawQcow2 left = guest.engine.oracle(guest.file);
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(kept, left.disk(null), "what is left");
    assertEquals(5632, Objects.requireNonNull(guest.engine.dataNow()).length());
  }

  @Test
  void preallocatesWhatIsAdded() throws IOException {
    for (Preallocation how :
        new Preallocation[] {Preallocation.METADATA, Preallocation.FALLOC, Preallocation.FULL}) {
      ImageShape shape = ImageShape.of(3, 4096, 16, 64 * KIB).with(Backing.RAW_LONGER);
      MemoryStorage file = shape.make(new byte[0]);
      Engine engine = new Engine(shape, new SeededRandom(1));
      byte[] expected;
      try (DiskImage image = engine.open(file)) {
        image.resize(256 * KIB);
        ((Qcow2Image) image).preallocate(64 * KIB, 192 * KIB, how, ProgressListener.NONE);
        expected = Arrays.copyOf(engine.base(), 64 * KIB);
      }
      RawQcow2 left = new RawQcow2(file);
      assertTrue(left.check().clean(), left.check()::toString);
      GuestModel.assertSame(
          Arrays.copyOf(expected, 256 * KIB), left.disk(engine.base()), how.toString());
      assertTrue(left.hostOffset(128 * KIB) > 0, how + " allocated nothing");
    }
  }

  static Stream<Arguments> places() {
    return Arrays.stream(Place.values())
        .flatMap(place ->
            Stream.of(Preallocation.METADATA, Preallocation.FALLOC, Preallocation.FULL)
                .map(how -> Arguments.of(place, how)));
  }

  @ParameterizedTest
  @MethodSource("places")
  void preallocatesWhereverTheDataIs(Place place, Preallocation how) throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 64 * KIB + 512).with(place);
    Guest guest = Guest.withPast(shape, new SeededRandom(1));
    int longer = 256 * KIB;
    byte[] expected = Arrays.copyOf(guest.model.latest(0, shape.diskBytes()), longer);
    int added = longer - shape.diskBytes();
    try (DiskImage image = guest.engine.open(guest.file)) {
      image.resize(longer);
      ((Qcow2Image) image).preallocate(shape.diskBytes(), added, how, ProgressListener.NONE);
      ByteBuffer read = ByteBuffer.allocate(longer);
      image.read(0, read);
      GuestModel.assertSame(expected, read.array(), "what the guest reads");
      image.write(200 * KIB, ByteBuffer.wrap(new byte[] {1}));
      expected[200 * KIB] = 1;
    }
    RawQcow2 left = guest.engine.oracle(guest.file);
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(expected, left.disk(null), "disk");
    if (place != Place.RAW_DATA_FILE) { // which the tables need not tell of
      RawQcow2.Kind middle = left.kinds()[128 * KIB / 4096];
      assertTrue(
          middle == RawQcow2.Kind.DATA || middle == RawQcow2.Kind.ALLOCATED_ZEROES,
          () -> how + " left " + middle);
    }
    MemoryStorage data = guest.engine.dataNow();
    assertTrue(data == null || data.length() >= longer, "the data file is too short");
  }

  @Test
  void refusesASizeOfNoSectorsAndOldSnapshots() throws IOException {
    ImageShape shape = ImageShape.of(2, 512, 16, 64 * KIB).withSnapshots(1);
    Guest guest = Guest.withPast(shape, new SeededRandom(1));
    try (DiskImage image = guest.engine.open(guest.file)) {
      Qcow2Image qcow2 = (Qcow2Image) image;
      assertThrows(UnsupportedImageException.class, () -> qcow2.shrink(1000));
      assertThrows(UnsupportedImageException.class, () -> qcow2.shrink(1024));
      assertEquals(64 * KIB, image.virtualBytes());
    }
  }
}
