package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.check.Checker;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.FaultyStorage;
import io.qnbd.image.io.FaultyStorage.Failure;
import io.qnbd.image.io.GatedStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.io.PowerCut;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Disks that grow while they are in use. */
final class GrowthTest {
  private static final int KIB = 1 << 10;
  private static final int TIMES = 6;
  private static final int CUTS_DEFAULT = 6_000;
  private static final int CUTS_PER_RUN = 60;
  private static final Set<Operation> FALLIBLE =
      EnumSet.complementOf(EnumSet.of(Operation.PREFETCH));

  /** With 512-byte clusters an L1 entry stands for 32 KiB, and 64 of them fill a cluster. */
  static Stream<ImageShape> shapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 64 * KIB);
    ImageShape usual = ImageShape.of(3, 4096, 16, 256 * KIB + 1536);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, 256 * KIB + 1536).withExtendedL2();
    return Stream.of(
        tiny,
        tiny.withBatches(0, 0),
        tiny.withBatches(3, 1).withSnapshots(2),
        tiny.withLazyRefcounts(),
        tiny.withLazyRefcounts().withBatches(2, 1).withSnapshots(1),
        tiny.with(Preparation.COMPRESSED).withSnapshots(1),
        tiny.with(Preparation.PREALLOCATED).withBatches(5, 1),
        tiny.with(Backing.RAW_LONGER).withBatches(3, 0),
        ImageShape.of(3, 512, 1, 96 * KIB),
        ImageShape.of(3, 512, 64, 512 * KIB).withBatches(6, 16),
        ImageShape.of(2, 512, 16, 64 * KIB),
        usual,
        usual.with(Preparation.PREALLOCATED).withSnapshots(1),
        usual.with(Preparation.COMPRESSED),
        usual.with(Backing.RAW_SHORTER).withSnapshots(1),
        usual.with(Backing.RAW_LONGER).withBatches(2, 2),
        usual.with(Backing.QCOW2).withLazyRefcounts(),
        usual.with(Place.DATA_FILE),
        usual.with(Place.RAW_DATA_FILE).withBatches(2, 1),
        ImageShape.of(2, 4096, 16, 256 * KIB + 512).with(Backing.RAW_SHORTER),
        ImageShape.of(3, 65536, 16, 512 * KIB + 4096).with(Backing.RAW_LONGER),
        subclusters.with(Backing.RAW_LONGER).withSnapshots(1),
        subclusters.with(Preparation.COMPRESSED).withBatches(2, 1).withLazyRefcounts());
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void whatIsAddedReadsAsZeroesAndTakesWrites(ImageShape shape) {
    Seeds.run("GrowthTest " + shape, Seeds.count("qnbd.growths", 3), seed -> use(shape, seed));
  }

  private static void use(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Growing growing = new Growing(shape, TIMES, random);
    MemoryStorage file = growing.guest.file;
    long bytes = shape.diskBytes();
    for (int session = 0; session < 3; session++) {
      try (DiskImage image = growing.guest.engine.open(file)) {
        assertEquals(bytes, image.virtualBytes());
        Workload workload =
            new Workload(random, image, growing.model, Workload.Mix.random(random, 64 * KIB));
        for (int step = 0; step < 5; step++) {
          growing.grow(image, workload, growing.nextBytes(image));
          workload.run(8);
        }
        workload.checkAll();
        bytes = image.virtualBytes();
      }
      checkAtRest(growing, file, bytes);
    }
  }

  private static void checkAtRest(Growing growing, MemoryStorage file, long bytes)
      throws IOException {
    RawQcow2 image = growing.guest.engine.oracle(file);
    RawQcow2.Findings findings = image.check();
    assertTrue(findings.clean(), findings::toString);
    CheckReport report = Checker.check(file);
    assertTrue(report.clean(), () -> "the engine's own check: " + report.findings());
    byte[] expected = growing.model.latest(0, (int) bytes);
    GuestModel.assertSame(expected, image.disk(growing.guest.engine.base()), "disk at rest");
    growing.guest.checkSnapshots(image);
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void aPowerCutLeavesTheOldSizeOrTheNew(ImageShape shape) {
    int share = Seeds.count("qnbd.growthCuts", CUTS_DEFAULT) / (int) shapes().count();
    int runs = share / CUTS_PER_RUN + 1;
    Seeds.run("GrowthTest cut " + shape, runs, seed -> cutOften(shape, seed));
  }

  private static void cutOften(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Growing growing = new Growing(shape, TIMES, random);
    CrashStorage storage = new CrashStorage(growing.guest.file);
    Cuts cuts = new Cuts(growing.guest, growing.model, random.split());
    cuts.mayHave(shape.diskBytes(), shape.diskBytes());
    try (DiskImage image = growing.guest.engine.open(storage)) {
      Workload.Mix mix = Workload.Mix.random(random, 16 * KIB);
      Workload workload = new Workload(random, image, growing.model, mix);
      for (int step = 0; step < 100 && cuts.count() < CUTS_PER_RUN * 5 / 6; step++) {
        storage.watch(cuts.sometimes(10, CUTS_PER_RUN * 5 / 6));
        workload.run(random.below(6));
        storage.watch(cuts.anywhere(12, CUTS_PER_RUN * 5 / 6));
        long bytes = growing.nextBytes(image);
        cuts.mayHave(image.virtualBytes(), bytes);
        growing.grow(image, workload, bytes);
        cuts.mayHave(bytes, bytes);
      }
    }
    storage.watch(null);
    while (cuts.count() < CUTS_PER_RUN) {
      cuts.take(storage);
    }
    cuts.verifyAll();
    assertEquals(CUTS_PER_RUN, cuts.count());
  }

  /** What the engine does after a cut that it sees must not matter. */
  @ParameterizedTest
  @MethodSource("shapes")
  void survivesACutThatItSees(ImageShape shape) {
    Seeds.run(
        "GrowthTest seen " + shape, Seeds.count("qnbd.seenCuts", 4), seed -> cutOnce(shape, seed));
  }

  private static void cutOnce(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Growing growing = new Growing(shape, TIMES, random);
    CrashStorage storage = new CrashStorage(growing.guest.file);
    Cuts cuts = new Cuts(growing.guest, growing.model, random.split());
    cuts.mayHave(shape.diskBytes(), shape.diskBytes());
    storage.cutAt(random.skewed(1, 80));
    try (DiskImage image = growing.guest.engine.open(storage)) {
      Workload.Mix mix = Workload.Mix.random(random, 16 * KIB);
      Workload workload = new Workload(random, image, growing.model, mix);
      for (int step = 0; step < 10; step++) {
        long bytes = growing.nextBytes(image);
        cuts.mayHave(image.virtualBytes(), bytes);
        growing.grow(image, workload, bytes);
        cuts.mayHave(bytes, bytes);
        workload.run(4);
      }
    } catch (PowerCut e) {
      assertTrue(storage.isCut(), "a cut that nobody made");
    } catch (IOException e) {
      if (!storage.isCut()) {
        throw e;
      }
    }
    for (int i = 0; i < 10; i++) {
      cuts.take(storage);
    }
    cuts.verifyAll();
  }

  static Stream<ImageShape> faultyShapes() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 64 * KIB);
    return Stream.of(
        tiny,
        tiny.withBatches(0, 0).withSnapshots(1),
        tiny.withLazyRefcounts().with(Backing.RAW_LONGER),
        ImageShape.of(3, 4096, 16, 64 * KIB + 1536).with(Backing.RAW_LONGER).withBatches(1, 1));
  }

  @ParameterizedTest
  @MethodSource("faultyShapes")
  void noFailedOperationMakesDataWrong(ImageShape shape) {
    for (Failure failure : Failure.values()) {
      Seeds.run(
          "GrowthTest " + failure + " " + shape,
          Seeds.count("qnbd.faults", 1),
          seed -> {
            for (long nth = 1; failAt(shape, failure, nth, true, seed); nth++) {}
            for (long nth = 1; failAt(shape, failure, nth, false, seed); nth++) {}
          });
    }
  }

  /**
   * Returns whether the run was long enough for the {@code nth} operation to come.
   *
   * @param once whether one operation fails, or a write and all writes after it
   */
  private static boolean failAt(
      ImageShape shape, Failure failure, long nth, boolean once, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Growing growing = new Growing(shape, TIMES, random);
    CrashStorage below = new CrashStorage(growing.guest.file);
    FaultyStorage storage = new FaultyStorage(below);
    if (once) {
      storage.failOnce(FALLIBLE, nth, failure);
    } else {
      storage.failFrom(EnumSet.of(Operation.WRITE), nth, failure);
    }
    long[] sizes = {shape.diskBytes(), shape.diskBytes()};
    try (DiskImage image = growing.guest.engine.open(storage)) {
      growAndFail(growing, image, storage, random.split(), sizes);
    } catch (IOException e) {
      assertTrue(storage.failures() > 0, "operation " + nth + ": nothing was made to fail: " + e);
    }
    Cuts cuts = new Cuts(growing.guest, growing.model, random.split());
    cuts.mayHave(sizes[0], sizes[1]);
    cuts.take(below);
    cuts.take(below);
    try {
      cuts.verifyAll();
    } catch (AssertionError e) {
      throw new AssertionError("operation " + nth + " failed: " + e, e);
    }
    return storage.failures() > 0;
  }

  private static void growAndFail(
      Growing growing, DiskImage image, FaultyStorage storage, SeededRandom random, long[] sizes)
      throws IOException {
    Workload workload =
        new Workload(random, image, growing.model, new Workload.Mix(15, 15, 15, 15, 16 * KIB));
    for (int step = 0; step < 5; step++) {
      try {
        workload.run(3);
        sizes[1] = growing.nextBytes(image);
        image.resize(sizes[1]);
        assertEquals(sizes[1], image.virtualBytes());
        sizes[0] = sizes[1];
      } catch (IOException e) {
        assertTrue(storage.failures() > 0, "nothing was made to fail: " + e);
        assertEquals(sizes[0], image.virtualBytes(), "size after a failed growth");
      }
    }
    storage.heal();
    workload.checkAll();
  }

  /** Readers and writers go on while the disk grows under them, in a cluster that they share. */
  @Test
  void requestsGoOnWhileTheDiskGrows() throws Exception {
    int threads = 3;
    int steps = 40;
    int start = 3 * 512 + 1024;
    int more = 6 * 1024 + 512;
    ImageShape shape = ImageShape.of(3, 4096, 16, start).with(Backing.RAW_LONGER).withBatches(3, 3);
    Engine engine = new Engine(shape, new SeededRandom(1));
    MemoryStorage file = shape.make(new byte[0]);
    byte[] expected = Arrays.copyOf(engine.base(), start);
    byte[] disk = Arrays.copyOf(expected, start + steps * more);
    AtomicBoolean over = new AtomicBoolean();
    try (DiskImage image = engine.open(file);
        ExecutorService pool = Executors.newFixedThreadPool(threads)) {
      List<CompletableFuture<Void>> users = new ArrayList<>();
      for (int thread = 0; thread < threads; thread++) {
        int mine = thread;
        users.add(CompletableFuture.runAsync(() -> use(image, mine, threads, disk, over), pool));
      }
      try {
        for (int step = 1; step <= steps && users.stream().noneMatch(u -> u.isDone()); step++) {
          image.resize(start + (long) step * more);
          if (step % 8 == 0) {
            image.snapshots().create("s" + step);
          }
        }
      } finally {
        over.set(true);
      }
      for (CompletableFuture<Void> user : users) {
        user.join();
      }
      assertEquals(disk.length, image.virtualBytes());
    }
    RawQcow2 left = new RawQcow2(file);
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(disk, left.disk(engine.base()), "disk");
  }

  /** Every {@code threads}-th sector is this thread's own, the disk's last one above all. */
  private static void use(DiskImage image, int mine, int threads, byte[] disk, AtomicBoolean over) {
    SeededRandom random = new SeededRandom(mine);
    try {
      while (!over.get()) {
        int sectors = (int) image.virtualBytes() / 512;
        int last = (sectors - 1 - mine) / threads * threads + mine;
        int sector = random.chance(50) ? last : random.below(last / threads + 1) * threads + mine;
        byte[] data = new byte[512];
        switch (random.below(4)) {
          case 0 -> {
            image.read(sector * 512L, ByteBuffer.wrap(data));
            byte[] wanted = Arrays.copyOfRange(disk, sector * 512, sector * 512 + 512);
            GuestModel.assertSame(wanted, data, "sector " + sector);
            continue;
          }
          case 1 -> image.writeZeroes(sector * 512L, 512, ZeroMode.MAY_UNMAP);
          default -> {
            data = Pattern.fill(random.nextLong(), 512);
            image.write(sector * 512L, ByteBuffer.wrap(data));
          }
        }
        System.arraycopy(data, 0, disk, sector * 512, 512);
      }
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  /** A commit that took L1 entries before the table moved: where it writes nothing else may be. */
  @Test
  void aCommitUnderWayMayStillWriteIntoTheOldTable() throws Exception {
    ImageShape shape = ImageShape.of(3, 512, 16, 512 * KIB).withBatches(1022, 0);
    MemoryStorage file = shape.make(new byte[0]);
    long oldL1 = l1Offset(file);
    GatedStorage storage = new GatedStorage(file);
    byte[] disk = new byte[2048 * KIB];
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(storage);
        ExecutorService pool = Executors.newSingleThreadExecutor()) {
      storage.close((at, _) -> at == oldL1);
      put(image, disk, 0);
      CompletionStage<@Nullable Void> commit = image.commit();
      storage.awaitArrival();
      CompletableFuture<Void> growth =
          CompletableFuture.runAsync(() -> grow(image, disk.length), pool);
      long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
      while (l1Offset(file) == oldL1 && !growth.isDone() && System.nanoTime() < deadline) {
        Thread.onSpinWait();
      }
      assertNotEquals(oldL1, l1Offset(file), "where the header says the L1 table is");
      for (int cluster = 1; cluster < 64; cluster++) {
        put(image, disk, cluster * 512);
      }
      storage.open();
      commit.toCompletableFuture().join();
      growth.join();
      byte[] found = new byte[disk.length];
      image.read(0, ByteBuffer.wrap(found));
      GuestModel.assertSame(disk, found, "disk");
    }
    RawQcow2 left = new RawQcow2(file);
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(disk, left.disk(null), "disk at rest");
  }

  /**
   * Zeroes up to the disk's end take the last cluster whole, but not once it is more than theirs.
   */
  @Test
  void zeroesThatBeganBeforeTheDiskGrewEndWhereItEnded() throws Exception {
    int clusterBytes = 4096;
    int end = 3 * clusterBytes + 1024;
    ImageShape shape = ImageShape.of(3, clusterBytes, 16, end);
    MemoryStorage file = shape.make(new byte[0]);
    GatedStorage storage = new GatedStorage(file);
    byte[] disk = new byte[4 * clusterBytes];
    System.arraycopy(Pattern.fill(1, 100), 0, disk, 0, 100);
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(storage);
        ExecutorService pool = Executors.newSingleThreadExecutor()) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, end)));
      image.flush();
      long first = new RawQcow2(file).hostOffset(0);
      storage.close((at, _) -> at >= first && at < first + clusterBytes);
      CompletableFuture<Void> zeroes =
          CompletableFuture.runAsync(() -> zero(image, 100, end - 100), pool);
      storage.awaitArrival();
      image.resize(disk.length);
      byte[] added = Pattern.fill(2, disk.length - end);
      image.write(end, ByteBuffer.wrap(added));
      System.arraycopy(added, 0, disk, end, added.length);
      storage.open();
      zeroes.join();
      byte[] found = new byte[disk.length];
      image.read(0, ByteBuffer.wrap(found));
      GuestModel.assertSame(disk, found, "disk");
    }
    assertTrue(new RawQcow2(file).check().clean());
  }

  private static void zero(DiskImage image, long at, long bytes) {
    try {
      image.writeZeroes(at, bytes, ZeroMode.MAY_UNMAP);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static long l1Offset(MemoryStorage file) {
    return ByteBuffer.wrap(file.bytes(40, 8)).getLong();
  }

  private static void put(DiskImage image, byte[] disk, int at) throws IOException {
    byte[] data = Pattern.fill(at, 512);
    image.write(at, ByteBuffer.wrap(data));
    System.arraycopy(data, 0, disk, at, 512);
  }

  private static void grow(DiskImage image, long bytes) {
    try {
      image.resize(bytes);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  /** Snapshots are taken at several sizes, and each keeps its own. */
  @Test
  void snapshotsKeepTheSizesThatTheyWereTakenWith() throws IOException {
    ImageShape shape = ImageShape.of(3, 512, 16, 64 * KIB);
    Engine engine = new Engine(shape, new SeededRandom(1));
    CrashStorage storage = new CrashStorage(shape.make(new byte[0]));
    List<byte[]> disks = new ArrayList<>();
    try (DiskImage image = engine.open(storage)) {
      for (int i = 0; i < 4; i++) {
        byte[] data = Pattern.fill(i, (int) image.virtualBytes());
        image.write(0, ByteBuffer.wrap(data));
        image.snapshots().create("s" + i);
        disks.add(data);
        image.resize(image.virtualBytes() + 48 * KIB);
      }
      image.snapshots().delete("s1");
    }
    disks.remove(1);
    RawQcow2 found = new RawQcow2(storage.contents());
    assertTrue(found.check().clean(), found.check()::toString);
    for (int i = 0; i < disks.size(); i++) {
      GuestModel.assertSame(disks.get(i), found.snapshotDisk(i, null), "snapshot " + i);
    }
  }

  @Test
  void whatOtherSoftwareLeftBehindTheEndIsNotSeen() throws IOException {
    ImageShape shape = ImageShape.of(3, 512, 16, 64 * KIB);
    MemoryStorage file = shape.make(new byte[0]);
    Engine engine = new Engine(shape, new SeededRandom(1));
    try (DiskImage image = engine.open(file)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, 64 * KIB)));
    }
    int shrunk = 40 * KIB;
    file.write(24, ByteBuffer.allocate(8).putLong(0, shrunk)); // the header's size, nothing else
    try (DiskImage image = engine.open(file)) {
      assertEquals(shrunk, image.virtualBytes());
      image.resize(60 * KIB);
      byte[] added = new byte[20 * KIB];
      image.read(shrunk, ByteBuffer.wrap(added));
      GuestModel.assertSame(new byte[20 * KIB], added, "what was added");
    }
    byte[] left = Arrays.copyOf(Pattern.fill(1, shrunk), 60 * KIB);
    GuestModel.assertSame(left, new RawQcow2(file).disk(null), "disk");
  }

  @Test
  void aDiskWithoutAByteGrows() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 0);
    MemoryStorage file = shape.make(new byte[0]);
    Engine engine = new Engine(shape, new SeededRandom(1));
    try (DiskImage image = engine.open(file)) {
      image.resize(1024);
      image.write(512, ByteBuffer.wrap(Pattern.fill(1, 512)));
    }
    RawQcow2 found = new RawQcow2(file);
    assertEquals(List.of(), found.check().corruptions());
    GuestModel.assertSame(
        Pattern.fill(1, 512), Arrays.copyOfRange(found.disk(null), 512, 1024), "sector 1");
  }

  @Test
  void refusesWhatItCantDoWithOneSentence() throws IOException {
    ImageShape shape = ImageShape.of(3, 512, 16, 64 * KIB);
    MemoryStorage file = shape.make(new byte[0]);
    byte[] before = file.bytes(0, (int) file.length());
    Engine engine = new Engine(shape, new SeededRandom(1));
    long most = (32L << 20) / 8 * 64 * 512;
    try (DiskImage image = engine.open(file)) {
      refuse(image, 64 * KIB - 512, "its disk has 65536 bytes and can't shrink to 65024");
      refuse(image, -512, "can't shrink to -512");
      refuse(image, 64 * KIB + 100, "no multiple of 512");
      refuse(image, most + 512, "with clusters of 512 bytes the most are " + most);
      refuse(image, Long.MAX_VALUE / 512 * 512, "the most are " + most);
      image.resize(64 * KIB);
    }
    GuestModel.assertSame(before, file.bytes(0, (int) file.length()), "file");
    try (DiskImage image =
        Qcow2Image.open(
            file,
            shape.options().withReadOnly(true),
            (name, _) -> {
              throw new AssertionError(name);
            })) {
      assertThrows(ReadOnlyImageException.class, () -> image.resize(128 * KIB));
    }
  }

  @Test
  void growsUpToTheLimitOfTheL1Table() throws IOException {
    ImageShape shape = ImageShape.of(3, 512, 16, 64 * KIB);
    CrashStorage storage = new CrashStorage(shape.make(new byte[0]));
    long most = (32L << 20) / 8 * 64 * 512;
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(storage)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, 512)));
      image.resize(most);
      image.write(most - 512, ByteBuffer.wrap(Pattern.fill(2, 512)));
      byte[] sector = new byte[512];
      image.read(0, ByteBuffer.wrap(sector));
      GuestModel.assertSame(Pattern.fill(1, 512), sector, "the first sector");
      image.read(most - 512, ByteBuffer.wrap(sector));
      GuestModel.assertSame(Pattern.fill(2, 512), sector, "the last sector");
    }
    assertTrue(Checker.check(storage.contents()).clean());
  }

  @Test
  void versionTwoRefusesWhatItCantSay() throws IOException {
    ImageShape longer = ImageShape.of(2, 4096, 16, 64 * KIB + 512).with(Backing.RAW_LONGER);
    try (DiskImage image = new Engine(longer, new SeededRandom(1)).open(longer.make(new byte[0]))) {
      refuse(image, 72 * KIB, "version 2 of the format can't prevent");
      image.resize(68 * KIB); // within the last cluster it can
      byte[] added = new byte[4 * KIB - 512];
      image.read(64 * KIB + 512, ByteBuffer.wrap(added));
      GuestModel.assertSame(new byte[added.length], added, "what was added");
    }
    ImageShape kept = ImageShape.of(2, 4096, 16, 64 * KIB);
    try (DiskImage image = new Engine(kept, new SeededRandom(1)).open(kept.make(new byte[0]))) {
      image.snapshots().create("old");
      refuse(image, 128 * KIB, "because the snapshot old does not record its own size");
      image.snapshots().delete("old");
      image.resize(128 * KIB);
    }
  }

  private static void refuse(DiskImage image, long bytes, String why) {
    long before = image.virtualBytes();
    IOException refused = assertThrows(UnsupportedImageException.class, () -> image.resize(bytes));
    assertTrue(String.valueOf(refused.getMessage()).contains(why), refused.getMessage());
    assertEquals(before, image.virtualBytes());
  }
}
