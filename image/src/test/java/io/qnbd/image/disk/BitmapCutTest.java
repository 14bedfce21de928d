package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RepairReport;
import io.qnbd.image.RepairScope;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.check.Repair;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawBitmaps;
import io.qnbd.image.oracle.RawBitmaps.Found;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Power cuts while an image's bitmaps are changed, while its disk is reverted to a snapshot, and
 * while it is repaired: the disk is what it was, or what it is to be, and a bitmap that is believed
 * misses nothing. What bitmaps say after other cuts is {@link BitmapsTest}'s.
 */
final class BitmapCutTest {
  private static final int KIB = 1 << 10;
  private static final int CUTS_DEFAULT = 200;
  private static final int CUTS_PER_RUN = 40;

  static Stream<ImageShape> shapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 160 * KIB);
    ImageShape usual = ImageShape.of(3, 4096, 16, 512 * KIB);
    return Stream.of(
        tiny.withSnapshots(1),
        tiny.withLazyRefcounts().withSnapshots(1),
        tiny.with(Preparation.COMPRESSED).withSnapshots(1).withBatches(3, 1),
        usual.withSnapshots(1).withBatches(0, 0),
        usual.with(Backing.QCOW2).withSnapshots(1),
        usual.with(Place.LUKS).withSnapshots(1),
        ImageShape.of(3, 16384, 16, 512 * KIB).withExtendedL2().withSnapshots(1));
  }

  private static int runs(String property) {
    return Seeds.count(property, CUTS_DEFAULT) / (int) shapes().count() / CUTS_PER_RUN + 1;
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void changesOfBitmapsLeaveTheDiskAlone(ImageShape shape) {
    Seeds.run(
        "BitmapCutTest changes " + shape,
        runs("qnbd.bitmapChangeCuts"),
        seed -> change(shape, seed));
  }

  private static void change(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    for (int session = 0; session < 20 && cuts.count() < CUTS_PER_RUN; session++) {
      storage.watch(cuts.anywhere(10, CUTS_PER_RUN));
      try (DiskImage image = guest.engine.open(storage)) {
        for (int step = 0; step < 6; step++) {
          change(image.bitmaps(), random);
        }
      }
      storage.watch(null);
    }
    cuts.verifyAll();
    assertTrue(cuts.count() > 0);
  }

  private static void change(Bitmaps bitmaps, SeededRandom random) throws IOException {
    List<BitmapInfo> all = bitmaps.list();
    String name = all.isEmpty() ? "" : random.pick(all).name();
    switch (all.size() < 2 ? 0 : random.below(8)) {
      case 0, 1 -> bitmaps.add("b" + random.nextLong(), 512L << random.below(5), random.chance(70));
      case 2 -> bitmaps.remove(name);
      case 3 -> bitmaps.clear(name);
      case 4 -> bitmaps.enable(name);
      case 5 -> bitmaps.disable(name);
      default -> bitmaps.merge(name, random.pick(all).name());
    }
  }

  // ---- reverting

  @ParameterizedTest
  @MethodSource("shapes")
  void noBitmapMissesARevert(ImageShape shape) {
    Seeds.run(
        "BitmapCutTest revert " + shape,
        runs("qnbd.bitmapRevertCuts"),
        seed -> revert(shape, seed));
  }

  private static void revert(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    byte[] old = guest.model.latest(0, shape.diskBytes());
    try (DiskImage image = guest.engine.open(guest.file)) {
      image.bitmaps().add("on", 512, true);
      image.bitmaps().add("coarse", 8192, true);
      image.bitmaps().add("off", 512, false);
      image.write(1024, ByteBuffer.wrap(old, 1024, 512)); // what it was: only bitmaps change
      image.bitmaps().merge("off", "on");
    }
    List<Found> before = RawBitmaps.read(guest.engine.oracle(guest.file));
    CrashStorage storage = new CrashStorage(guest.file);
    GuestModel model = new GuestModel(old);
    Cuts cuts = new Cuts(guest, model, random.split());
    cuts.mayHold(guest.snapshots.contents("snapshot 0"));
    cuts.alsoCheck((found, disk) -> requireAllRecorded(before, old, found, disk));
    storage.watch(cuts.sometimes(60, CUTS_PER_RUN));
    List<String> wrong;
    try (Qcow2Image image = (Qcow2Image) guest.engine.open(storage)) {
      wrong = image.revertTo("snapshot 0");
    }
    Rebuild.rebuild(storage, ProgressListener.NONE);
    try (Qcow2Image image = (Qcow2Image) guest.engine.open(storage)) {
      image.rightBitmaps(wrong);
    }
    storage.watch(null);
    cuts.take(storage);
    cuts.verifyAll();
    assertEquals(3, believed(guest.engine.oracle(storage.contents())).size(), "when it is done");
  }

  private static List<Found> believed(RawQcow2 image) {
    return RawBitmaps.read(image).stream().filter(bitmap -> !bitmap.inUse()).toList();
  }

  /** What a bitmap had it has; one that records has all that is other than it was, too. */
  private static void requireAllRecorded(
      List<Found> before, byte[] old, RawQcow2 found, byte[] disk) {
    for (Found bitmap : believed(found)) {
      Found was =
          before.stream()
              .filter(each -> each.name().equals(bitmap.name()))
              .findFirst()
              .orElseThrow();
      BitSet missed = (BitSet) was.bits().clone();
      if (bitmap.name().equals("off")) {
        assertEquals(was.bits(), bitmap.bits(), "one that does not record");
      } else {
        int granule = 1 << bitmap.granularityBits();
        for (int at = 0; at < old.length; at += granule) {
          int end = Math.min(old.length, at + granule);
          if (!Arrays.equals(old, at, end, disk, at, end)) {
            missed.set(at / granule);
          }
        }
      }
      missed.andNot(bitmap.bits());
      assertTrue(missed.isEmpty(), () -> bitmap.name() + " misses " + missed);
    }
  }

  // ---- repairing

  static Stream<ImageShape> repaired() {
    return shapes().filter(shape -> shape.place() == Place.HERE && !shape.extendedL2());
  }

  /** An entry that names nothing in the file reads as zeroes afterwards: a change of the disk. */
  @ParameterizedTest
  @MethodSource("repaired")
  void noBitmapMissesARepair(ImageShape shape) {
    Seeds.run(
        "BitmapCutTest repair " + shape,
        runs("qnbd.bitmapRepairCuts"),
        seed -> repair(shape, seed));
  }

  private static void repair(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    long at = (long) shape.clusterBytes() * random.below(shape.diskBytes() / shape.clusterBytes());
    try (DiskImage image = guest.engine.open(guest.file)) {
      image.write(at, ByteBuffer.wrap(random.bytes(512)));
      image.bitmaps().add("on", 512, true);
      image.bitmaps().add("off", 512, false);
      image.write(1024, ByteBuffer.wrap(random.bytes(512)));
      image.bitmaps().merge("off", "on");
    }
    long entryAt = new RawQcow2(guest.file).l2EntryOffset(at);
    guest.file.write(entryAt, ByteBuffer.allocate(8).putLong(0, L2Entry.data(1L << 40)));
    List<Found> before = RawBitmaps.read(new RawQcow2(guest.file));
    CrashStorage storage = new CrashStorage(guest.file);
    List<MemoryStorage> cuts = new ArrayList<>();
    SeededRandom chances = random.split();
    storage.watch((_, file) -> {
      if (cuts.size() < CUTS_PER_RUN && chances.chance(40)) {
        cuts.add(file.cut(chances));
      }
    });
    Repair.repair(storage, RepairScope.ALL, ProgressListener.NONE);
    storage.watch(null);
    cuts.add(storage.cut(chances));
    for (MemoryStorage cut : cuts) {
      boolean damaged = ByteBuffer.wrap(cut.bytes(entryAt, 8)).getLong() == L2Entry.data(1L << 40);
      for (Found bitmap : believed(new RawQcow2(cut))) {
        assertTrue(bitmap.name().equals("off") || damaged, "the repair was not recorded");
        assertTrue(before.contains(bitmap), bitmap::toString);
      }
      RepairReport again = Repair.repair(cut, RepairScope.ALL, ProgressListener.NONE);
      assertTrue(again.after().clean(), again::toString);
      RawQcow2 left = new RawQcow2(cut);
      assertTrue(left.check().clean(), left.check()::toString);
      List<Found> found = RawBitmaps.read(left);
      assertEquals(2, found.size());
      assertTrue(found.getFirst().inUse(), "the one that records");
      assertEquals(before.getLast(), found.getLast(), "the one that does not");
    }
  }
}
