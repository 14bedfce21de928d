package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RepairReport;
import io.qnbd.image.RepairScope;
import io.qnbd.image.check.RebuildImage.Shape;
import io.qnbd.image.disk.Qcow2Image;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawBitmaps;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Repairs of images that are damaged in any way, with power cuts in the midst of them. */
final class RepairTest {
  private static final int KIB = 1024;
  private static final int CUTS_PER_RUN = 6;

  static Stream<Shape> shapes() {
    return Stream.of(
        new Shape(2, 512, 16, 96 * KIB, false, 1),
        new Shape(2, 4096, 16, 512 * KIB, true, 1),
        new Shape(3, 512, 8, 128 * KIB, true, 2),
        new Shape(3, 512, 64, 96 * KIB, false, 1),
        new Shape(3, 4096, 16, 512 * KIB, false, 2),
        new Shape(3, 4096, 64, 512 * KIB, true, 1),
        new Shape(3, 65536, 16, 1024 * KIB, false, 1));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void mendsDamagedTablesAndNeverMakesThemWorse(Shape shape) {
    Seeds.run(
        "repair " + shape,
        Seeds.count("qnbd.repairs", 12),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          RebuildImage image = RebuildImage.make(shape, random);
          DamagedImage.damage(image, random);
          MemoryStorage file = image.file();
          DamagedImage before = DamagedImage.of(file);
          List<MemoryStorage> cuts = new ArrayList<>();
          requireRepaired(before, repairCutting(file, random, cuts));
          for (MemoryStorage cut : cuts) {
            before.requireNoWorse(cut);
            Repair.repair(cut, RepairScope.ALL, ProgressListener.NONE);
            requireRepaired(before, cut);
          }
        });
  }

  private static MemoryStorage repairCutting(
      MemoryStorage file, SeededRandom random, List<MemoryStorage> cuts) throws IOException {
    CrashStorage storage = new CrashStorage(file);
    storage.watch((_, cuttable) -> {
      if (cuts.size() < CUTS_PER_RUN && random.chance(25)) {
        cuts.add(cuttable.cut(random));
      }
    });
    Repair.repair(storage, RepairScope.ALL, ProgressListener.NONE);
    storage.watch(null);
    return storage.cut(random); // all of it is durable
  }

  private static void requireRepaired(DamagedImage before, MemoryStorage file) throws IOException {
    CheckReport report = Checker.check(file);
    assertEquals(List.of(), report.findings());
    RawQcow2.Findings findings = new RawQcow2(file).check();
    assertEquals(List.of(), findings.corruptions());
    assertEquals(0, findings.leaks(), "leaks");
    before.requireSameWhereReadable(file);
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void givesLeaksBackAndLeavesTheRest(Shape shape) {
    Seeds.run(
        "repair leaks " + shape,
        Seeds.count("qnbd.leakRepairs", 8),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          RebuildImage image = RebuildImage.make(shape, random);
          image.leak(random);
          MemoryStorage file = image.file();
          RepairReport report = Repair.repair(file, RepairScope.LEAKS, ProgressListener.NONE);
          assertTrue(report.leaksFixed() > 0 || report.before().clean());
          image.requireRebuilt(file);
        });
  }

  private static RebuildImage small() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, 64 * KIB, 1, null, null);
    ImageMaker.preallocate(file, Long.MAX_VALUE);
    return new RebuildImage(file);
  }

  @Test
  void writesNothingToAnImageInOrder() throws IOException {
    MemoryStorage file = small().file();
    long writes = file.count(Operation.WRITE);
    RepairReport report = Repair.repair(file, RepairScope.ALL, ProgressListener.NONE);
    assertTrue(report.before().clean());
    assertEquals(writes, file.count(Operation.WRITE));
  }

  @Test
  void clearsTheCorruptBitOfAnImageThatIsInOrder() throws IOException {
    RebuildImage image = small();
    image.bytes().putLong(HeaderLayout.INCOMPATIBLE_AT, FeatureBits.CORRUPT | FeatureBits.DIRTY);
    MemoryStorage file = image.file();
    RepairReport report = Repair.repair(file, RepairScope.ALL, ProgressListener.NONE);
    assertEquals(List.of(), report.after().findings());
    image.requireRebuilt(file);
  }

  @Test
  void leavesLeaksWhereTablesAreDamagedUnlessAllIsAskedFor() throws IOException {
    RebuildImage image = small();
    int l2At = image.l2At(image.activeL1Entries().getFirst());
    image.bytes().putLong(l2At, L2Entry.data(1L << 40));
    image.setRefcount(500, 1);
    MemoryStorage file = image.file();
    byte[] before = file.bytes(0, (int) file.length());
    RepairReport leaks = Repair.repair(file, RepairScope.LEAKS, ProgressListener.NONE);
    assertArrayEquals(before, file.bytes(0, (int) file.length()));
    assertTrue(leaks.repairs().getFirst().contains("leaks are left"), leaks::toString);
    RepairReport all = Repair.repair(file, RepairScope.ALL, ProgressListener.NONE);
    assertTrue(all.after().clean(), all::toString);
    assertTrue(all.repairs().getFirst().contains("reads as zeroes"), all::toString);
  }

  @Test
  void keepsTheCountsThatAreTooLowWhereOnlyLeaksAreAskedFor() throws IOException {
    RebuildImage image = small();
    image.setRefcount(1, 0);
    image.setRefcount(500, 7);
    MemoryStorage file = image.file();
    RepairReport report = Repair.repair(file, RepairScope.LEAKS, ProgressListener.NONE);
    assertEquals(0, report.after().leaks(), report::toString);
    assertEquals(1, report.after().corruptions(), report::toString);
    assertFalse(new RawQcow2(file).dirty());
  }

  @Test
  void partsDataFromTheTableThatItOverlaps() throws IOException {
    RebuildImage image = small();
    int l2At = image.l2At(image.activeL1Entries().getFirst());
    image.bytes().putLong(l2At, L2Entry.data(image.tableEntryAt(0))); // the refcount table
    image.bytes().putLong(l2At + 8, L2Entry.data(l2At)); // the L2 table itself
    MemoryStorage file = image.file();
    RepairReport report = Repair.repair(file, RepairScope.ALL, ProgressListener.NONE);
    assertTrue(report.after().clean(), report::toString);
    Set<Long> places =
        Stream.of(0, 4096)
            .map(offset -> new RawQcow2(file).hostOffset(offset))
            .collect(Collectors.toSet());
    assertEquals(2, places.size(), places::toString);
  }

  /** An entry that named nothing reads as zeroes afterwards, which no bitmap has recorded. */
  @Test
  void bitmapsThatRecordAreNotBelievedAfterAnEntryWasMended() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, 256 * KIB, 1, null, null);
    try (DiskImage image =
        Qcow2Image.open(file, OpenOptions.DEFAULT, (name, _) -> fail("no backing file: " + name))) {
      image.write(0, ByteBuffer.wrap(new byte[] {1}));
      image.bitmaps().add("on", 65536, true);
      image.bitmaps().add("off", 65536, false);
    }
    long l1At = ByteBuffer.wrap(file.bytes(HeaderLayout.L1_OFFSET_AT, 8)).getLong();
    long l2At = ByteBuffer.wrap(file.bytes(l1At, 8)).getLong() & ~(1L << 63);
    file.write(l2At, ByteBuffer.allocate(8).putLong(L2Entry.data(1L << 40)).flip());
    RepairReport report = Repair.repair(file, RepairScope.ALL, ProgressListener.NONE);
    assertTrue(report.after().clean(), report::toString);
    assertEquals(
        List.of("on true", "off false"),
        RawBitmaps.read(new RawQcow2(file)).stream()
            .map(found -> found.name() + " " + found.inUse())
            .toList());
  }
}
