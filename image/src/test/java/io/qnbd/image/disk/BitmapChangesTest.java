package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.bitmap.DirtyBitmaps;
import io.qnbd.image.check.Checker;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.FaultyStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.oracle.BitmapMaker;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawBitmaps;
import io.qnbd.image.oracle.RawBitmaps.Found;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.EnumSet;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What can be done with bitmaps, what can't, and how they get along with everything else. */
final class BitmapChangesTest {
  private static final int MIB = 1 << 20;
  private static final BackingOpener NO_BACKING =
      (name, _) -> {
        throw new AssertionError(name);
      };

  private static MemoryStorage empty(int version, int diskBytes) throws IOException {
    return ImageMaker.empty(version, 4096, 16, diskBytes, 1, null, null);
  }

  private static Qcow2Image open(MemoryStorage file) throws IOException {
    return Qcow2Image.open(file, OpenOptions.DEFAULT, NO_BACKING);
  }

  private static List<Found> found(MemoryStorage file) {
    return RawBitmaps.read(new RawQcow2(file));
  }

  private static BitSet bits(int... set) {
    BitSet bits = new BitSet();
    for (int bit : set) {
      bits.set(bit);
    }
    return bits;
  }

  private static void write(DiskImage image, long at) throws IOException {
    image.write(at, ByteBuffer.wrap(new byte[] {1}));
  }

  private static void refused(String why, Bitmaps bitmaps, Change change) {
    IOException e = assertThrows(IOException.class, () -> change.make(bitmaps));
    assertTrue(String.valueOf(e.getMessage()).contains(why), e.getMessage());
  }

  private interface Change {
    void make(Bitmaps bitmaps) throws IOException;
  }

  @Test
  void refusesWhatMakesNoSense() throws IOException {
    MemoryStorage file = empty(3, MIB);
    try (DiskImage image = open(file)) {
      Bitmaps bitmaps = image.bitmaps();
      bitmaps.add("a", 0, true);
      bitmaps.add("ü".repeat(511) + "x", 0, false);
      refused("already", bitmaps, b -> b.add("a", 0, true));
      refused("1 to 1023 bytes", bitmaps, b -> b.add("", 0, true));
      refused("1 to 1023 bytes", bitmaps, b -> b.add("ü".repeat(512), 0, true));
      refused("1 to 1023 bytes", bitmaps, b -> b.add("a\0b", 0, true));
      refused("power of two", bitmaps, b -> b.add("b", 256, true));
      refused("power of two", bitmaps, b -> b.add("b", 5000, true));
      refused("power of two", bitmaps, b -> b.add("b", 1L << 32, true));
      refused("power of two", bitmaps, b -> b.add("b", -512, true));
      refused("no bitmap named b", bitmaps, b -> b.remove("b"));
      refused("no bitmap named b", bitmaps, b -> b.merge("b", "a"));
      refused("no dirty bitmap named b", bitmaps, b -> b.merge("a", "b"));
      refused("no dirty bitmap named b", bitmaps, b -> b.replace("b", "c", 0));
      bitmaps.disable("a");
      refused("does not record", bitmaps, b -> b.replace("a", "c", 0));
      assertEquals(
          new BitmapInfo("a", 4096, false, true), bitmaps.list().getFirst(), "nothing changed");
      assertEquals(2, bitmaps.list().size());
    }
    assertTrue(Checker.check(file).clean());
    try (DiskImage image =
        Qcow2Image.open(file, OpenOptions.DEFAULT.withReadOnly(true), NO_BACKING)) {
      assertThrows(ReadOnlyImageException.class, () -> image.bitmaps().remove("a"));
    }
    try (DiskImage image = open(empty(2, MIB))) {
      refused("version 2", image.bitmaps(), b -> b.add("a", 0, true));
    }
    try (DiskImage image = open(empty(3, 0))) {
      refused("0 bytes", image.bitmaps(), b -> b.add("a", 0, true));
    }
  }

  @Test
  void aDisabledBitmapStaysWhateverIsWritten() throws IOException {
    MemoryStorage file = empty(3, MIB);
    BitmapMaker.add(
        file,
        List.of(
            new BitmapMaker.Bitmap("old", 16, 0, new byte[0], bits(1, 5)),
            new BitmapMaker.Bitmap("new", 16, bits(2))));
    try (DiskImage image = open(file)) {
      write(image, 0);
      image.flush();
      List<Found> meanwhile = found(file);
      assertEquals(new Found("old", 16, false, false, bits(1, 5)), meanwhile.get(0));
      assertTrue(meanwhile.get(1).inUse());
    }
    assertEquals(
        List.of(
            new Found("old", 16, false, false, bits(1, 5)),
            new Found("new", 16, false, true, bits(0, 2))),
        found(file));
  }

  @Test
  void whatIsNotWrittenStaysConsistentWithoutAClose() throws IOException {
    MemoryStorage file = empty(3, MIB);
    BitmapMaker.add(file, List.of(new BitmapMaker.Bitmap("b", 16, bits(2))));
    try (DiskImage image = open(file)) {
      image.read(0, ByteBuffer.allocate(MIB));
      image.snapshots().create("s");
      image.bitmaps().add("c", 65536, true);
      image.flush();
      assertEquals(
          List.of(
              new Found("b", 16, false, true, bits(2)), new Found("c", 16, false, true, bits())),
          found(file));
    }
  }

  /** The way past locks and tables that an event loop takes records as every other does. */
  @Test
  void aQuickWriteIsRecordedAndSurvivesNoPowerCutAsBelieved() throws IOException {
    CrashStorage storage = new CrashStorage(empty(3, MIB));
    try (DiskImage image = Qcow2Image.open(storage, OpenOptions.DEFAULT, NO_BACKING)) {
      image.write(0, ByteBuffer.allocate(8192).put(0, (byte) 1)); // so that clusters are there
      image.bitmaps().add("b", 512, true);
    }
    try (DiskImage image = Qcow2Image.open(storage, OpenOptions.DEFAULT, NO_BACKING)) {
      ByteBuffer one = ByteBuffer.allocateDirect(1).put(0, (byte) 2);
      assertFalse(image.tryWrite(1024, one), "the bitmap is not marked yet");
      write(image, 0);
      assertTrue(image.tryWrite(4000, one));
      List<Long> dirty = new ArrayList<>();
      image.dirtyExtents("b", 0, 8192, (bytes, isDirty) -> dirty.add(isDirty ? bytes : -bytes));
      assertEquals(List.of(512L, -3072L, 512L, -4096L), dirty);
      for (int seed = 0; seed < 8; seed++) {
        assertTrue(found(storage.cut(new SeededRandom(seed))).getFirst().inUse());
      }
    }
    assertEquals(List.of(new Found("b", 9, false, true, bits(0, 7))), found(storage.contents()));
  }

  /** A bitmap of which a part were given away would say less than it did, and be believed. */
  @Test
  void isNotCompactedWhenABitmapsClustersCountAsFree() throws IOException {
    MemoryStorage file = empty(3, MIB);
    BitmapMaker.Places places =
        BitmapMaker.add(file, List.of(new BitmapMaker.Bitmap("b", 16, bits(2))));
    long refcountTable = ByteBuffer.wrap(file.bytes(48, 8)).getLong();
    long block = ByteBuffer.wrap(file.bytes(refcountTable, 8)).getLong();
    file.write(block + places.tables().getFirst() / 4096 * 2, ByteBuffer.allocate(2));
    Qcow2Image image = open(file);
    IOException e = assertThrows(IOException.class, () -> image.compact(ProgressListener.NONE));
    assertTrue(String.valueOf(e.getMessage()).contains("counted as free"), e.getMessage());
    image.close();
    assertEquals(bits(2), found(file).getFirst().bits());
  }

  /** What is committed into a backing file changes that file's disk. */
  @Test
  void aCommitIsRecordedInTheBackingFile(@TempDir Path directory) throws IOException {
    Path base = directory.resolve("base.qcow2");
    Path overlay = directory.resolve("overlay.qcow2");
    DiskImages.create(base, CreateOptions.qcow2(MIB));
    DiskImages.create(
        overlay,
        new CreateOptions(
            ImageFormat.QCOW2,
            2L * MIB,
            65536,
            3,
            16,
            false,
            false,
            Path.of("base.qcow2"),
            ImageFormat.QCOW2,
            Preallocation.OFF));
    try (DiskImage image = DiskImages.open(base, OpenOptions.DEFAULT)) {
      image.bitmaps().add("b", 65536, true);
    }
    try (DiskImage image = DiskImages.open(overlay, OpenOptions.DEFAULT)) {
      image.bitmaps().add("o", 65536, true);
      write(image, 65536);
      write(image, 2 * MIB - 1);
    }
    DiskImages.commit(overlay, OpenOptions.DEFAULT, false, ProgressListener.NONE);
    try (DiskImage image = DiskImages.open(base, OpenOptions.DEFAULT.withReadOnly(true))) {
      assertEquals(List.of(-1, 1, -29, 1), dirty(image, "b"));
    }
    try (DiskImage image = DiskImages.open(overlay, OpenOptions.DEFAULT.withReadOnly(true))) {
      assertEquals(List.of(-1, 1, -29, 1), dirty(image, "o"), "it reads the same");
    }
  }

  /** Lengths in granules of 64 KiB, below zero for what is clean. */
  private static List<Integer> dirty(DiskImage image, String bitmap) throws IOException {
    List<Integer> extents = new ArrayList<>();
    image.dirtyExtents(
        bitmap,
        0,
        image.virtualBytes(),
        (bytes, isDirty) -> extents.add((int) (isDirty ? bytes : -bytes) / 65536));
    return extents;
  }

  /** Also one whose extra data we don't know, which we can't keep up to date. */
  @Test
  void whatWasFoundInUseIsKeptAndCanBeRemoved() throws IOException {
    MemoryStorage file = empty(3, MIB);
    int inUse = BitmapMaker.IN_USE | BitmapMaker.AUTO;
    BitmapMaker.add(
        file,
        List.of(
            new BitmapMaker.Bitmap("crashed", 16, inUse, new byte[0], bits(1)),
            new BitmapMaker.Bitmap("good", 16, bits(2)),
            new BitmapMaker.Bitmap("strange", 16, BitmapMaker.AUTO, new byte[5], bits(3))));
    try (DiskImage image = open(file)) {
      assertEquals(
          List.of("good"), image.consistentBitmaps().stream().map(BitmapInfo::name).toList());
      refused("can't be believed", image.bitmaps(), b -> b.clear("crashed"));
      refused("can't be believed", image.bitmaps(), b -> b.enable("strange"));
      refused("unknown here", image.bitmaps(), _ -> image.resize(2 * MIB));
      write(image, MIB - 1);
    }
    List<Found> after = found(file);
    assertTrue(after.get(0).inUse() && after.get(2).inUse());
    assertEquals(new Found("good", 16, false, true, bits(2, 15)), after.get(1));
    try (DiskImage image = open(file)) {
      assertEquals(
          List.of(false, true, false),
          image.bitmaps().list().stream().map(BitmapInfo::consistent).toList());
      image.bitmaps().remove("crashed");
      image.bitmaps().remove("strange");
    }
    assertEquals(List.of(new Found("good", 16, false, true, bits(2, 15))), found(file));
    assertTrue(Checker.check(file).clean());
  }

  @Test
  void damagedBitmapsAreGivenUpWithTheFirstChange() throws IOException {
    MemoryStorage file = empty(3, MIB);
    BitmapMaker.Places places =
        BitmapMaker.add(file, List.of(new BitmapMaker.Bitmap("b", 16, bits(2))));
    file.write(places.directory() + 16, ByteBuffer.wrap(new byte[] {7}));
    try (DiskImage image = open(file)) {
      assertEquals(List.of(), image.bitmaps().list());
      assertEquals(1, file.bytes(95, 1)[0], "nothing was changed yet");
      write(image, 0);
      assertEquals(0, file.bytes(95, 1)[0]);
      image.bitmaps().add("again", 65536, true);
      write(image, 65536);
    }
    assertEquals(List.of(new Found("again", 16, false, true, bits(1))), found(file));
    assertEquals(0, Checker.check(file).corruptions());
  }

  @Test
  void mergesABitmapOfAnotherImage() throws IOException {
    MemoryStorage file = empty(3, MIB);
    MemoryStorage other = empty(3, MIB);
    BitmapMaker.add(other, List.of(new BitmapMaker.Bitmap("theirs", 9, bits(0, 300, 301))));
    try (DiskImage image = open(file);
        DiskImage source = open(other);
        DiskImage longer = open(empty(3, 2 * MIB))) {
      image.bitmaps().add("ours", 65536, false);
      image.bitmaps().merge("ours", source, "theirs");
      longer.bitmaps().add("long", 0, true);
      refused("bytes, this one has", image.bitmaps(), b -> b.merge("ours", longer, "long"));
    }
    assertEquals(List.of(new Found("ours", 16, false, false, bits(0, 2))), found(file));
  }

  /** Everything may be other than it was; of another size, too. */
  @Test
  void revertingMakesEverythingDirty() throws IOException {
    MemoryStorage file = empty(3, MIB);
    try (DiskImage image = open(file)) {
      image.snapshots().create("small");
      image.bitmaps().add("off", 4096, false);
      image.bitmaps().add("fine", 512, true);
      image.resize(40 * MIB);
      write(image, 30 * MIB);
      image.bitmaps().merge("off", "fine");
      write(image, 0);
      image.bitmaps().merge("off", "fine");
    }
    List<String> wrong;
    try (Qcow2Image image = open(file)) {
      wrong = image.revertTo("small");
    }
    assertTrue(found(file).stream().allMatch(Found::inUse), "until it is done");
    Rebuild.rebuild(file, ProgressListener.NONE);
    try (Qcow2Image image = open(file)) {
      image.rightBitmaps(wrong);
      assertEquals(2, image.consistentBitmaps().size());
    }
    BitSet all = new BitSet();
    all.set(0, MIB / 512);
    assertEquals(
        List.of(
            new Found("off", 12, false, false, bits(0)), new Found("fine", 9, false, true, all)),
        found(file));
    assertTrue(Checker.check(file).clean());
  }

  /** An extension behind the bitmaps' one can't be moved up in one step. */
  @Test
  void otherExtensionsStayWhereverTheyAre() throws IOException {
    MemoryStorage file = empty(3, MIB);
    ByteBuffer filler = ByteBuffer.allocate(8 + 480).putInt(0x71717171).putInt(480);
    file.write(104, filler.clear());
    try (DiskImage image = open(file)) {
      image.bitmaps().add("b", 0, true);
    }
    Header header = ImageFile.of(file).readHeader();
    List<HeaderExtension> more = new ArrayList<>(header.extensions());
    more.add(new HeaderExtension(0x72727272, ByteBuffer.wrap(Pattern.fill(3, 600))));
    file.write(0, header.toBuilder().extensions(more).build().encode());
    try (DiskImage image = open(file)) {
      image.bitmaps().remove("b");
    }
    assertEquals(List.of(), found(file));
    assertEquals(more.getFirst(), ImageFile.of(file).readHeader().extensions().getFirst());
    assertEquals(more.getLast(), ImageFile.of(file).readHeader().extensions().getLast());
    try (DiskImage image = open(file)) {
      image.bitmaps().add("c", 0, false);
    }
    header = ImageFile.of(file).readHeader();
    assertEquals(3, header.extensions().size(), "its room was used again");
    assertEquals(more.getLast(), header.extensions().getLast());
    List<ImageReport.Bitmap> described = DirtyBitmaps.describe(ImageFile.of(file), header);
    assertEquals(List.of(new ImageReport.Bitmap("c", 4096, false, false)), described);
  }

  @Test
  void aFirstClusterWithoutRoomIsSaid() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 512, 16, MIB, 4, null, null);
    file.write(104, ByteBuffer.allocate(8 + 384).putInt(0x71717171).putInt(384).clear());
    try (DiskImage image = open(file)) {
      assertThrows(UnsupportedImageException.class, () -> image.bitmaps().add("b", 0, true));
      write(image, 0);
    }
    assertTrue(Checker.check(file).clean());
  }

  /**
   * While guests write: copy what each bitmap says once the next has taken over, and the copy is
   * the disk when they stop.
   */
  @Test
  void nothingFallsBetweenABitmapAndItsSuccessor() {
    Seeds.run("BitmapChangesTest", Seeds.count("qnbd.bitmapChains", 2), BitmapChangesTest::chain);
  }

  private static void chain(long seed) throws Exception {
    SeededRandom random = new SeededRandom(seed);
    MemoryStorage file = ImageShape.of(3, 4096, 16, 2 * MIB).make(new byte[0]);
    byte[] copy = new byte[2 * MIB];
    AtomicBoolean stop = new AtomicBoolean();
    try (DiskImage image = open(file);
        ExecutorService threads = Executors.newFixedThreadPool(2)) {
      image.bitmaps().add("0", 4096, true);
      List<CompletableFuture<Void>> guests = new ArrayList<>();
      for (int i = 0; i < 2; i++) {
        SeededRandom own = random.split();
        guests.add(CompletableFuture.runAsync(() -> scribble(image, own, stop), threads));
      }
      int number = 0;
      for (; number < 20; number++) {
        image.bitmaps().replace(Integer.toString(number), Integer.toString(number + 1), 4096);
        copyDirty(image, Integer.toString(number), copy);
        image.bitmaps().remove(Integer.toString(number));
      }
      stop.set(true);
      guests.forEach(CompletableFuture::join);
      copyDirty(image, Integer.toString(number), copy);
      byte[] disk = new byte[copy.length];
      image.read(0, ByteBuffer.wrap(disk));
      GuestModel.assertSame(disk, copy, "the copy");
    }
    assertTrue(Checker.check(file).clean());
  }

  private static void scribble(DiskImage image, SeededRandom random, AtomicBoolean stop) {
    try {
      while (!stop.get()) {
        int count = (int) random.skewed(1, 32 << 10);
        long at = random.below(2L * MIB - count + 1);
        switch (random.below(6)) {
          case 0 -> image.trim(at, count);
          case 1 -> image.writeZeroes(at, count, ZeroMode.MAY_UNMAP);
          default -> writeQuickly(image, at, random.bytes(count));
        }
      }
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static void writeQuickly(DiskImage image, long at, byte[] bytes) throws IOException {
    ByteBuffer source = ByteBuffer.allocateDirect(bytes.length).put(bytes).flip();
    if (!image.tryWrite(at, source)) {
      image.write(at, source);
    }
  }

  private static void copyDirty(DiskImage image, String bitmap, byte[] copy) throws IOException {
    int[] at = new int[1];
    List<int[]> dirty = new ArrayList<>();
    image.dirtyExtents(
        bitmap,
        0,
        copy.length,
        (bytes, isDirty) -> {
          if (isDirty) {
            dirty.add(new int[] {at[0], (int) bytes});
          }
          at[0] += (int) bytes;
          return true;
        });
    for (int[] range : dirty) {
      image.read(range[0], ByteBuffer.wrap(copy, range[0], range[1]));
    }
  }

  /** Whatever fails once: what can be believed afterwards misses nothing. */
  @Test
  void noFailedOperationMakesABitmapMissAChange() throws IOException {
    for (FaultyStorage.Failure failure : FaultyStorage.Failure.values()) {
      boolean failed = true;
      for (long nth = 1; failed; nth++) {
        failed = failEach(failure, nth);
      }
    }
  }

  private static boolean failEach(FaultyStorage.Failure failure, long nth) throws IOException {
    MemoryStorage file = empty(3, MIB);
    BitmapMaker.add(
        file,
        List.of(
            new BitmapMaker.Bitmap("a", 16, bits(9)),
            new BitmapMaker.Bitmap("b", 12, 0, new byte[0], bits(7))));
    CrashStorage below = new CrashStorage(file);
    FaultyStorage storage = new FaultyStorage(below);
    storage.failOnce(EnumSet.complementOf(EnumSet.of(Operation.PREFETCH)), nth, failure);
    BitSet written = new BitSet();
    List<Change> steps =
        List.of(
            b -> b.enable("b"),
            b -> b.add("c", 65536, true),
            b -> b.clear("a"),
            b -> b.merge("b", "c"),
            b -> b.disable("a"),
            b -> b.replace("c", "d", 65536),
            b -> b.remove("a"));
    try (DiskImage image = Qcow2Image.open(storage, OpenOptions.DEFAULT, NO_BACKING)) {
      for (int step = 0; step < steps.size(); step++) {
        try {
          steps.get(step).make(image.bitmaps());
        } catch (IOException e) {
          assertTrue(storage.failures() > 0, () -> "nothing was made to fail: " + e);
        }
        try {
          write(image, step * 65536L);
          written.set(step);
        } catch (IOException e) {
          assertTrue(storage.failures() > 0, () -> "nothing was made to fail: " + e);
        }
      }
    } catch (IOException e) {
      assertTrue(storage.failures() > 0, () -> "nothing was made to fail: " + e);
    }
    for (MemoryStorage left : List.of(below.contents(), below.cut(new SeededRandom(nth)))) {
      assertEquals(List.of(), new RawQcow2(left).check().corruptions(), failure + " " + nth);
      for (Found bitmap : found(left)) {
        // Of "b" it is known when it began to record: before all changes but perhaps the first.
        boolean tells = bitmap.name().equals("b") && bitmap.auto() && !bitmap.inUse();
        for (int step = 1; tells && step < steps.size(); step++) {
          boolean dirty = bitmap.bits().get(step * 16);
          assertTrue(dirty || !written.get(step), failure + " " + nth + " misses " + step);
        }
      }
    }
    return storage.failures() > 0;
  }
}
