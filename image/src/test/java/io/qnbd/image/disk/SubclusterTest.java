package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RepairScope;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.check.Checker;
import io.qnbd.image.check.Repair;
import io.qnbd.image.create.ImageCreator;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.RawQcow2.Kind;
import io.qnbd.image.oracle.SnapshotMaker;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Clusters of 64 KiB whose 32 subclusters are allocated, zeroed and trimmed one by one. */
final class SubclusterTest {
  private static final int CLUSTER = 65536;
  private static final int SUB = CLUSTER / 32;
  private static final int DISK = 16 * CLUSTER;
  private static final ImageShape PLAIN = ImageShape.of(3, CLUSTER, 16, DISK).withExtendedL2();
  private static final ImageShape BACKED = PLAIN.with(Backing.RAW_LONGER);

  private final Engine engine;
  private final Engine backedEngine;

  SubclusterTest() throws IOException {
    engine = new Engine(PLAIN, new SeededRandom(1));
    backedEngine = new Engine(BACKED, new SeededRandom(1));
  }

  private static void write(DiskImage image, int at, int bytes) throws IOException {
    image.write(at, ByteBuffer.wrap(Pattern.fill(at, bytes)));
  }

  /** What the first cluster's subclusters are: a letter each. */
  private static String firstCluster(MemoryStorage file) {
    StringBuilder letters = new StringBuilder();
    for (Kind kind : Arrays.copyOf(new RawQcow2(file).kinds(), 32)) {
      letters.append(
          switch (kind) {
            case DATA -> 'D';
            case ZEROES -> 'z';
            case ALLOCATED_ZEROES -> 'Z';
            case UNALLOCATED -> '.';
          });
    }
    return letters.toString();
  }

  private static String letters(int from, String some) {
    return ".".repeat(from) + some + ".".repeat(32 - from - some.length());
  }

  private static void assertClean(MemoryStorage file) throws IOException {
    RawQcow2.Findings findings = new RawQcow2(file).check();
    assertTrue(findings.clean(), findings::toString);
    assertTrue(Checker.check(file).clean(), () -> "the engine's own check");
  }

  @Test
  void aFirstWriteAllocatesAClusterButOnlyTheSubclustersThatItTouches() throws IOException {
    MemoryStorage file = BACKED.make(new byte[0]);
    byte[] disk = Arrays.copyOf(backedEngine.base(), DISK);
    try (DiskImage image = backedEngine.open(file)) {
      assertEquals(SUB, image.preferredBytes());
      write(image, 5 * SUB + 512, 3 * SUB);
      System.arraycopy(Pattern.fill(5 * SUB + 512, 3 * SUB), 0, disk, 5 * SUB + 512, 3 * SUB);
      image.flush();
      assertEquals(letters(5, "DDDD"), firstCluster(file));
      long host = new RawQcow2(file).hostOffset(5L * SUB);
      // Behind the subclusters that were touched nothing was written: there is no copy on write.
      assertTrue(file.isHole(host + 4 * SUB, CLUSTER - 9 * SUB));
      write(image, 20 * SUB, SUB);
      System.arraycopy(Pattern.fill(20 * SUB, SUB), 0, disk, 20 * SUB, SUB);
      image.flush();
      assertEquals(host + 15 * SUB, new RawQcow2(file).hostOffset(20L * SUB), "the same cluster");
      byte[] found = new byte[DISK];
      image.read(0, ByteBuffer.wrap(found));
      GuestModel.assertSame(disk, found, "disk");
    }
    assertEquals(letters(5, "DDDD" + ".".repeat(11) + "D"), firstCluster(file));
    assertClean(file);
  }

  /** Counts syncs of writes that are each flushed: one where all that is replaced is zeroes. */
  @ParameterizedTest
  @CsvSource({"false, 1", "true, 2"})
  void aWriteToAFurtherSubclusterCostsASecondSyncOnlyOverOtherBytes(boolean backed, int syncs)
      throws IOException {
    CrashStorage file = new CrashStorage((backed ? BACKED : PLAIN).make(new byte[0]));
    try (DiskImage image = (backed ? backedEngine : engine).open(file)) {
      write(image, 0, SUB);
      image.flush();
      for (int sub = 1; sub < 32; sub++) {
        long before = file.count(Operation.SYNC);
        write(image, sub * SUB, SUB);
        image.flush();
        assertEquals(syncs, file.count(Operation.SYNC) - before, "subcluster " + sub);
      }
      long before = file.count(Operation.SYNC);
      image.writeZeroes(SUB, SUB, ZeroMode.MAY_UNMAP);
      image.flush();
      assertEquals(1, file.count(Operation.SYNC) - before, "zeroing");
      write(image, SUB, 512);
      image.flush();
      assertEquals(3, file.count(Operation.SYNC) - before, "the old bytes are still in the place");
    }
    assertClean(file.contents());
  }

  @Test
  void theLastSubclusterThatIsTrimmedTakesTheClusterAlong() throws IOException {
    MemoryStorage file = PLAIN.make(new byte[0]);
    try (DiskImage image = engine.open(file)) {
      write(image, 0, 4 * SUB);
      image.trim(SUB, 2 * SUB + SUB / 2);
      image.flush();
      assertEquals(letters(0, "D..D"), firstCluster(file));
      assertEquals(0, image.stats().batched());
      image.trim(3 * SUB - 512, SUB + 512);
      image.trim(0, SUB - 512); // no whole subcluster: nothing happens
      image.flush();
      assertEquals(letters(0, "D"), firstCluster(file));
      image.trim(0, SUB);
      image.flush();
      assertEquals(letters(0, ""), firstCluster(file));
      assertEquals(1, image.stats().batched());
    }
    assertClean(file);
  }

  @Test
  void overABackingFileTrimmedSubclustersAreMarked() throws IOException {
    MemoryStorage file = BACKED.make(new byte[0]);
    try (DiskImage image = backedEngine.open(file)) {
      write(image, 0, 2 * SUB);
      image.trim(SUB, 3 * SUB);
      image.flush();
      assertEquals(letters(0, "DZZZ"), firstCluster(file));
      image.trim(0, SUB);
      image.flush();
      assertEquals(letters(0, "zzzz"), firstCluster(file));
      byte[] found = new byte[4 * SUB];
      image.read(0, ByteBuffer.wrap(found));
      assertArrayEquals(new byte[4 * SUB], found);
    }
    assertClean(file);
  }

  @Test
  void zeroesThatKeepTheirSpaceAreMarkedWhereThereIsAClusterAndWrittenWhereThereIsNone()
      throws IOException {
    MemoryStorage file = BACKED.make(new byte[0]);
    try (DiskImage image = backedEngine.open(file)) {
      assertFalse(image.tryFastZeroes(SUB, SUB, ZeroMode.KEEP_ALLOCATED));
      image.writeZeroes(SUB, SUB, ZeroMode.KEEP_ALLOCATED);
      image.flush();
      assertEquals(letters(1, "D"), firstCluster(file));
      long writes = file.count(Operation.WRITE);
      assertTrue(image.tryFastZeroes(0, 3 * SUB, ZeroMode.KEEP_ALLOCATED));
      assertEquals(writes, file.count(Operation.WRITE));
      image.flush();
      assertEquals(letters(0, "ZZZ"), firstCluster(file));
      assertTrue(image.tryFastZeroes(512, 512, ZeroMode.KEEP_ALLOCATED), "is already");
      assertFalse(image.tryFastZeroes(3 * SUB, 512, ZeroMode.MAY_UNMAP), "less than a subcluster");
      assertTrue(image.tryFastZeroes(512, 3 * SUB - 512, ZeroMode.MAY_UNMAP));
      image.flush();
      assertEquals(letters(0, "ZZZ"), firstCluster(file));
    }
    assertClean(file);
  }

  @Test
  void aCompressedClusterIsTakenApartOnlyWhole() throws IOException {
    byte[] contents = new byte[DISK];
    Arrays.fill(contents, (byte) 7);
    ImageShape shape = PLAIN.with(Preparation.COMPRESSED);
    MemoryStorage file = shape.make(contents);
    try (DiskImage image = engine.open(file)) {
      assertFalse(image.tryFastZeroes(SUB, SUB, ZeroMode.MAY_UNMAP));
      image.trim(SUB, SUB);
      image.writeZeroes(SUB, SUB, ZeroMode.MAY_UNMAP);
      image.flush();
      assertEquals("D".repeat(32), firstCluster(file));
      image.writeZeroes(CLUSTER, CLUSTER, ZeroMode.MAY_UNMAP);
      Arrays.fill(contents, SUB, 2 * SUB, (byte) 0);
      Arrays.fill(contents, CLUSTER, 2 * CLUSTER, (byte) 0);
      byte[] found = new byte[DISK];
      image.read(0, ByteBuffer.wrap(found));
      GuestModel.assertSame(contents, found, "disk");
    }
    assertClean(file);
  }

  @Test
  void ofAClusterThatASnapshotSharesOnlyWhatIsAllocatedIsCopied() throws IOException {
    MemoryStorage file = BACKED.make(new byte[0]);
    byte[] old;
    try (DiskImage image = backedEngine.open(file)) {
      write(image, 2 * SUB, SUB);
      write(image, 9 * SUB, 2 * SUB);
      write(image, 30 * SUB, SUB);
      image.writeZeroes(20 * SUB, SUB, ZeroMode.MAY_UNMAP);
    }
    old = new RawQcow2(file).disk(backedEngine.base());
    SnapshotMaker.take(file, "s");
    byte[] disk = old.clone();
    try (DiskImage image = backedEngine.open(file)) {
      write(image, 11 * SUB + 512, 512);
      System.arraycopy(Pattern.fill(11 * SUB + 512, 512), 0, disk, 11 * SUB + 512, 512);
      image.flush();
      assertEquals(letters(2, "D......DDD........Z.........D"), firstCluster(file));
      long host = new RawQcow2(file).hostOffset(2L * SUB) - 2 * SUB;
      assertTrue(file.isHole(host + 3 * SUB, 6 * SUB), "what nobody asked for was copied");
    }
    assertClean(file);
    RawQcow2 left = new RawQcow2(file);
    GuestModel.assertSame(disk, left.disk(backedEngine.base()), "disk");
    GuestModel.assertSame(old, left.snapshotDisk(0, backedEngine.base()), "snapshot");
  }

  /**
   * A write over subclusters that are there and one that is not: whatever of it a power cut keeps,
   * each sector is the old one or the new one. QEMU 7.2 and 10.0 left zeroes where older, durable
   * data had been.
   */
  @Test
  void aCutInAWriteOverOldAndNewSubclustersLeavesEachSectorOldOrNew() {
    Seeds.run(
        "SubclusterTest cut",
        25,
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          boolean backed = random.chance(50);
          ImageShape shape = backed ? BACKED : PLAIN;
          Guest guest = new Guest(shape, random);
          try (DiskImage image = guest.engine.open(guest.file)) {
            for (int sub = 0; sub < 8; sub += 2) {
              guest.model.begin(sub * SUB, Pattern.fill((long) sub * SUB, SUB));
              write(image, sub * SUB, SUB);
              guest.model.end(sub * SUB, SUB);
            }
          }
          CrashStorage storage = new CrashStorage(guest.file);
          GuestModel model = new GuestModel(guest.model.latest(0, DISK));
          Cuts cuts = new Cuts(guest, model, random.split());
          storage.watch(cuts.anywhere(60, 12));
          try (DiskImage image = guest.engine.open(storage)) {
            Workload workload = new Workload(random, image, model, new Workload.Mix(0, 0, 0, 0, 1));
            for (int step = 0; step < 3; step++) {
              int at = random.below(8 * SUB / 512) * 512;
              int bytes = random.between(1, 5 * SUB / 512) * 512;
              switch (random.below(4)) {
                case 0 -> workload.zero(at, bytes, ZeroMode.MAY_UNMAP);
                case 1 -> workload.trim(at, bytes);
                default -> workload.write(at, Pattern.fill(random.nextLong(), bytes));
              }
            }
          }
          cuts.verifyAll();
        });
  }

  @ParameterizedTest
  @CsvSource({
    "both allocated and zero, 0, 0x0000000100000001, contradict each other",
    "a reserved bit, 1, 0x0000000000000001, names no cluster",
    "compressed with subclusters, 0x4000000000000000, 0x0000000000000001, contradict each other"
  })
  void refusesDamagedEntriesWithOneSentence(String what, String bits, String word, String why)
      throws IOException {
    MemoryStorage file = PLAIN.make(new byte[0]);
    try (DiskImage image = engine.open(file)) {
      write(image, 0, SUB);
      write(image, CLUSTER, SUB);
    }
    RawQcow2 tables = new RawQcow2(file);
    long at = tables.l2EntryOffset(0);
    long entry = ByteBuffer.wrap(file.bytes(at, 8)).getLong();
    long damaged = (what.startsWith("compressed") ? CLUSTER : entry) | Long.decode(bits);
    file.write(at, ByteBuffer.allocate(16).putLong(damaged).putLong(Long.decode(word)).flip());
    assertDamaged(file, why);
    assertFalse(new RawQcow2(file).check().clean(), what);
    assertTrue(Checker.check(file).corruptions() > 0, what);
  }

  @Test
  void refusesSubclustersWithoutAClusterUntilTheyAreRepaired() throws IOException {
    MemoryStorage file = PLAIN.make(new byte[0]);
    try (DiskImage image = engine.open(file)) {
      write(image, CLUSTER, SUB);
    }
    long at = new RawQcow2(file).l2EntryOffset(0);
    file.write(at + 8, ByteBuffer.allocate(8).putLong(2).flip());
    assertDamaged(file, "contradict each other");
    assertTrue(Checker.check(file).corruptions() > 0);
    Repair.repair(file, RepairScope.ALL, ProgressListener.NONE);
    assertEquals(".z" + ".".repeat(30), firstCluster(file));
    assertClean(file);
  }

  private interface Request {
    void on(DiskImage image) throws IOException;
  }

  /** The cluster can't be read or changed; its neighbour can be read. */
  private void assertDamaged(MemoryStorage file, String why) throws IOException {
    assertRefused(file, why, image -> image.read(0, ByteBuffer.allocate(512)));
    assertRefused(file, why, image -> write(image, 0, 512));
    assertRefused(file, why, image -> image.writeZeroes(SUB, SUB, ZeroMode.MAY_UNMAP));
    assertRefused(file, why, image -> image.trim(SUB, SUB));
  }

  /** The first request that finds the damage says so; the image then takes no more changes. */
  private void assertRefused(MemoryStorage file, String why, Request request) throws IOException {
    DiskImage image = engine.open(file.copy());
    CorruptImageException refused =
        assertThrows(CorruptImageException.class, () -> request.on(image));
    assertTrue(String.valueOf(refused.getMessage()).contains(why), refused.getMessage());
    byte[] found = new byte[SUB];
    image.read(CLUSTER, ByteBuffer.wrap(found));
    assertArrayEquals(Pattern.fill(CLUSTER, SUB), found);
    assertThrows(IOException.class, () -> write(image, CLUSTER, 512));
    assertThrows(IOException.class, image::close);
  }

  @Test
  void preallocatedTablesLetEveryWriteGoInPlace() throws IOException {
    MemoryStorage file = new MemoryStorage("new");
    ImageCreator.create(
        file,
        new CreateOptions(
            ImageFormat.QCOW2,
            (long) DISK,
            CLUSTER,
            3,
            16,
            false,
            true,
            null,
            null,
            Preallocation.METADATA));
    assertClean(file);
    try (DiskImage image = engine.open(file)) {
      long length = file.length();
      write(image, 3 * CLUSTER + 100, 2 * CLUSTER);
      assertEquals(length, file.length());
      assertEquals(0, image.stats().reserved());
      image.flush();
      assertEquals(0, image.stats().tableWrites());
    }
    assertEquals("D".repeat(32), firstCluster(file));
    assertClean(file);
  }
}
