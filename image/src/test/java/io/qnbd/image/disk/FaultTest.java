package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.FaultyStorage;
import io.qnbd.image.io.FaultyStorage.Failure;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Every single operation of a run on the host's file fails once: no wrong data, no corruption. */
final class FaultTest {
  private static final int MIB = 1 << 20;
  private static final int STEPS = 25;
  private static final Set<Operation> FALLIBLE =
      EnumSet.complementOf(EnumSet.of(Operation.PREFETCH));

  static Stream<ImageShape> shapes() {
    ImageShape usual = ImageShape.of(3, 4096, 16, MIB / 4);
    return Stream.of(
        ImageShape.of(3, 512, 64, MIB / 2).withBatches(20, 16),
        ImageShape.of(3, 512, 16, MIB / 8).withSnapshots(1).withBatches(3, 3),
        usual,
        usual.withSnapshots(1),
        usual.with(Preparation.COMPRESSED).withBatches(0, 0),
        usual.with(Preparation.ZSTD).withBatches(3, 3),
        usual.with(Backing.QCOW2).withBatches(4, 4),
        ImageShape.of(2, 4096, 16, MIB / 4).with(Backing.RAW_SHORTER));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void noFailedOperationMakesDataWrong(ImageShape shape) {
    for (Failure failure : Failure.values()) {
      Seeds.run(
          "FaultTest " + failure + " " + shape,
          Seeds.count("qnbd.faults", 1),
          seed -> failEach(shape, failure, seed));
    }
  }

  private static void failEach(ImageShape shape, Failure failure, long seed) throws IOException {
    boolean failed = true;
    for (long nth = 1; failed; nth++) {
      Run run = new Run(shape, failure, seed);
      try {
        failed = run.withFailureAt(nth);
      } catch (AssertionError | IOException | RuntimeException e) {
        throw new AssertionError("operation " + nth + " failed: " + e, e);
      }
    }
  }

  /** One run of the same workload, with one failure in it. */
  private static final class Run {
    private final SeededRandom random;
    private final Guest guest;
    private final Failure failure;
    private final ImageShape shape;
    private final CrashStorage below;
    private final FaultyStorage storage;
    private final GuestModel model;

    Run(ImageShape shape, Failure failure, long seed) throws IOException {
      this.shape = shape;
      this.failure = failure;
      random = new SeededRandom(seed);
      guest = Guest.withPast(shape, random);
      below = new CrashStorage(guest.file);
      storage = new FaultyStorage(below);
      model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    }

    /** Returns whether the run was long enough for the {@code nth} operation to come. */
    boolean withFailureAt(long nth) throws IOException {
      storage.failOnce(FALLIBLE, nth, failure);
      boolean closedWell = false;
      try {
        openWorkClose();
        closedWell = true;
      } catch (IOException e) {
        assertTrue(storage.failures() > 0, "nothing was made to fail: " + e);
      }
      Cuts cuts = new Cuts(guest, model, random.split());
      cuts.take(below);
      cuts.take(below);
      cuts.verifyAll();
      MemoryStorage left = below.contents();
      RawQcow2 image = new RawQcow2(left);
      assertEquals(List.of(), image.check().corruptions());
      guest.checkSnapshots(image);
      if (closedWell) {
        byte[] disk = image.disk(guest.engine.base());
        GuestModel.assertSame(model.latest(0, model.bytes()), disk, "disk when closed");
      }
      return storage.failures() > 0;
    }

    private void openWorkClose() throws IOException {
      try (DiskImage image = guest.engine.open(storage)) {
        work(image);
      }
    }

    private void work(DiskImage image) throws IOException {
      int compressed = shape.preparation() == Preparation.EMPTY ? 0 : 50;
      Workload.Mix mix = new Workload.Mix(15, 15, 15, 15, 32 * 1024, compressed);
      Workload workload = new Workload(random.split(), image, model, mix);
      for (int step = 0; step < STEPS; step++) {
        try {
          workload.step();
        } catch (IOException e) {
          assertTrue(storage.failures() > 0, "nothing was made to fail: " + e);
        }
      }
      // A failed read or write is over; reads, whatever failed before, give the right bytes.
      storage.heal();
      workload.checkAll();
    }
  }

  @Test
  void aFailedSyncEndsAllChangesUntilTheImageIsOpenedAgain() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, MIB);
    Engine engine = new Engine(shape, new SeededRandom(1));
    MemoryStorage file = shape.make(new byte[0]);
    FaultyStorage storage = new FaultyStorage(file);
    DiskImage image = engine.open(storage);
    image.write(0, ByteBuffer.wrap(Pattern.fill(1, 8192)));
    image.flush();
    image.write(4096, ByteBuffer.wrap(Pattern.fill(2, 8192)));
    storage.failOnce(EnumSet.of(Operation.SYNC), 1, Failure.IO_ERROR);
    assertThrows(IOException.class, image::flush);
    assertEquals(1, storage.failures());
    assertThrows(IOException.class, image::flush);
    assertThrows(IOException.class, () -> image.write(0, ByteBuffer.wrap(Pattern.fill(3, 512))));
    assertThrows(IOException.class, () -> image.writeZeroes(0, 8192, ZeroMode.MAY_UNMAP));
    assertThrows(IOException.class, () -> image.trim(0, 8192));
    byte[] first = new byte[4096];
    image.read(0, ByteBuffer.wrap(first));
    GuestModel.assertSame(Pattern.fill(1, 4096), first, "what was flushed before");
    assertThrows(IOException.class, image::close);

    assertEquals(List.of(), new RawQcow2(file).check().corruptions());
    try (DiskImage again = engine.open(file)) {
      again.read(0, ByteBuffer.wrap(first));
      GuestModel.assertSame(Pattern.fill(1, 4096), first, "what was flushed before");
      again.write(4096, ByteBuffer.wrap(Pattern.fill(4, 8192)));
    }
    assertEquals(List.of(), new RawQcow2(file).check().corruptions());
  }
}
