package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.check.RebuildImage.Shape;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

final class RebuildTest {
  private static final int KIB = 1024;
  private static final int CUTS_PER_RUN = 8;

  static Stream<Shape> shapes() {
    return Stream.of(
        new Shape(2, 512, 16, 96 * KIB, false, 2),
        new Shape(2, 4096, 16, 512 * KIB, true, 1),
        new Shape(2, 65536, 16, 2048 * KIB, false, 1),
        new Shape(3, 512, 1, 128 * KIB, false, 0),
        new Shape(3, 512, 8, 128 * KIB, true, 2),
        new Shape(3, 512, 64, 96 * KIB, false, 1),
        new Shape(3, 4096, 1, 512 * KIB, false, 0),
        new Shape(3, 4096, 8, 512 * KIB, false, 2),
        new Shape(3, 4096, 64, 512 * KIB, true, 2),
        new Shape(3, 65536, 1, 1024 * KIB, false, 0),
        new Shape(3, 65536, 8, 1024 * KIB, true, 1),
        new Shape(3, 65536, 64, 2048 * KIB, false, 2));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void mendsDamagedCountsAndFlags(Shape shape) {
    Seeds.run(
        "rebuild " + shape,
        Seeds.count("qnbd.rebuilds", 20),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          RebuildImage image = RebuildImage.make(shape, random);
          image.damage(random);
          MemoryStorage file = image.file();
          Rebuild.rebuild(file, ProgressListener.NONE);
          image.requireRebuilt(file);
          byte[] before = file.bytes(0, (int) file.length());
          assertEquals(0, Rebuild.rebuild(file, ProgressListener.NONE), "counts still wrong");
          assertArrayEquals(before, file.bytes(0, (int) file.length()));
        });
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void anotherRebuildMendsWhatAPowerCutLeft(Shape shape) {
    Seeds.run(
        "cut rebuild " + shape,
        Seeds.count("qnbd.cutRebuilds", 10),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          RebuildImage image = RebuildImage.make(shape, random);
          image.damage(random);
          rebuildWithCuts(image, image.file(), random, 2);
        });
  }

  /** Cuts the rebuild at some operations; what is found is whole, and is rebuilt in turn. */
  private static void rebuildWithCuts(
      RebuildImage image, MemoryStorage file, SeededRandom random, int depth) throws IOException {
    List<MemoryStorage> cuts = new ArrayList<>();
    MemoryStorage done = rebuildCutting(file, 40, random, cuts);
    image.requireRebuilt(done);
    for (MemoryStorage cut : cuts) {
      image.requireSameContent(cut);
      if (depth > 1 && random.chance(20)) {
        rebuildWithCuts(image, cut, random, depth - 1);
      } else {
        Rebuild.rebuild(cut, ProgressListener.NONE);
        image.requireRebuilt(cut);
      }
    }
  }

  private static MemoryStorage rebuildCutting(
      MemoryStorage file, int percent, SeededRandom random, List<MemoryStorage> cuts)
      throws IOException {
    CrashStorage storage = new CrashStorage(file);
    storage.watch((_, cuttable) -> {
      if (cuts.size() < CUTS_PER_RUN && random.chance(percent)) {
        cuts.add(cuttable.cut(random));
      }
    });
    Rebuild.rebuild(storage, ProgressListener.NONE);
    storage.watch(null);
    return storage.cut(random); // all of it is durable
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void noCountFallsBelowItsReferencesOnTheWay(Shape shape) {
    Seeds.run(
        "rebuild leaks " + shape,
        5,
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          RebuildImage image = RebuildImage.make(shape, random);
          image.leak(random);
          List<MemoryStorage> cuts = new ArrayList<>();
          rebuildCutting(image.file(), 100, random, cuts);
          for (MemoryStorage cut : cuts) {
            List<String> corruptions = new RawQcow2(cut).check().corruptions();
            assertFalse(
                corruptions.stream().anyMatch(text -> text.contains("references")),
                corruptions::toString);
          }
        });
  }

  /**
   * 64 clusters to a block, and one of those blocks gone whose clusters are all in use: the first
   * image has room for a new one at its end, the second needs a block for that place too, the third
   * a longer refcount table.
   */
  @ParameterizedTest
  @ValueSource(ints = {3900, 1982, 3967})
  void findsRoomForABlockOutsideOfWhatItCounts(int guestClusters) throws IOException {
    RebuildImage image = fullImage(guestClusters);
    MemoryStorage file = image.file();
    Rebuild.rebuild(file, ProgressListener.NONE);
    image.requireRebuilt(file);
    boolean grew =
        new RebuildImage(file).bytes().getInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT) > 1;
    assertEquals(guestClusters == 3967, grew, "whether the table grew");
    Seeds.run(
        "full image " + guestClusters,
        10,
        seed -> rebuildWithCuts(image, image.file(), new SeededRandom(seed), 2));
  }

  private static RebuildImage fullImage(int guestClusters) throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 512, 64, guestClusters * 512L, 1, null, null);
    ImageMaker.preallocate(file, Long.MAX_VALUE);
    RebuildImage whole = new RebuildImage(file);
    // A guest cluster takes the place of block 20, so that no cluster there is free.
    int entryAt = whole.tableEntryAt(20);
    long blockAt = whole.bytes().getLong(entryAt);
    whole.bytes().putLong(entryAt, 0);
    whole.bytes().putLong(whole.l2At(whole.activeL1Entries().getFirst()), L2Entry.data(blockAt));
    whole.setDirty();
    return new RebuildImage(whole.file());
  }

  private static RebuildImage small(int refcountBits) throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, refcountBits, 64 * KIB, 1, null, null);
    ImageMaker.preallocate(file, Long.MAX_VALUE);
    return new RebuildImage(file);
  }

  @Test
  void saysHowManyCountsWereWrong() throws IOException {
    RebuildImage image = small(16);
    image.setRefcount(1, 0);
    image.setRefcount(3, 7);
    image.setRefcount(500, 1);
    MemoryStorage file = image.file();
    assertEquals(3, Rebuild.rebuild(file, ProgressListener.NONE));
    image.requireRebuilt(file);
  }

  @Test
  void writesNothingWhereNothingIsWrong() throws IOException {
    MemoryStorage file = small(16).file();
    long writes = file.count(Operation.WRITE);
    assertEquals(0, Rebuild.rebuild(file, ProgressListener.NONE));
    assertEquals(writes, file.count(Operation.WRITE));
  }

  @Test
  void clearsTheDirtyBitAloneAndAutoclearBitsThatItDoesNotKnow() throws IOException {
    RebuildImage image = small(16);
    image.setDirty();
    image.bytes().putLong(HeaderLayout.COMPATIBLE_AT, FeatureBits.LAZY_REFCOUNTS);
    image.bytes().putLong(HeaderLayout.AUTOCLEAR_AT, 1L << 40 | FeatureBits.BITMAPS);
    MemoryStorage file = image.file();
    Rebuild.rebuild(file, ProgressListener.NONE);
    RebuildImage rebuilt = new RebuildImage(file);
    assertEquals(0, rebuilt.bytes().getLong(HeaderLayout.INCOMPATIBLE_AT));
    assertEquals(FeatureBits.LAZY_REFCOUNTS, rebuilt.bytes().getLong(HeaderLayout.COMPATIBLE_AT));
    assertEquals(FeatureBits.BITMAPS, rebuilt.bytes().getLong(HeaderLayout.AUTOCLEAR_AT));
  }

  @Test
  void theFileMayEndInsideItsLastCluster() throws IOException {
    RebuildImage image = small(16);
    MemoryStorage file = image.file();
    file.setLength(file.length() - 4095);
    image.setRefcount(1, 0);
    Rebuild.rebuild(file, ProgressListener.NONE);
    image.requireRebuilt(file);
  }

  @Test
  void tellsItsProgressToTheEnd() throws IOException {
    List<String> steps = new ArrayList<>();
    Rebuild.rebuild(
        small(16).file(),
        (what, done, total) -> {
          assertTrue(done <= total, what);
          if (done == total) {
            steps.add(what);
          }
        });
    assertTrue(steps.contains("counting references"), steps::toString);
    assertTrue(steps.contains("raising refcounts"), steps::toString);
    assertTrue(steps.contains("setting COPIED flags"), steps::toString);
  }

  private static void requireRefused(RebuildImage image, String expected) throws IOException {
    MemoryStorage file = image.file();
    byte[] before = file.bytes(0, (int) file.length());
    CorruptImageException e =
        assertThrows(
            CorruptImageException.class, () -> Rebuild.rebuild(file, ProgressListener.NONE));
    assertTrue(String.valueOf(e.getMessage()).contains(expected), e::toString);
    assertArrayEquals(before, file.bytes(0, (int) file.length()));
  }

  @Test
  void refusesOtherDamageAndChangesNothing() throws IOException {
    List<Consumer<RebuildImage>> damages =
        List.of(
            image -> setL2(image, L2Entry.data(1L << 40)),
            image -> setL2(image, L2Entry.data(4096)),
            image -> setL2(image, L2Entry.data(512)),
            image -> image.bytes().putLong(image.tableEntryAt(1), 1L << 40),
            image -> image.bytes().putLong(image.activeL1Entries().getFirst(), 1L << 63),
            image -> image.bytes().putLong(HeaderLayout.INCOMPATIBLE_AT, FeatureBits.CORRUPT));
    for (Consumer<RebuildImage> damage : damages) {
      RebuildImage image = small(16);
      image.setRefcount(1, 0);
      damage.accept(image);
      requireRefused(image, "too damaged to rebuild refcounts automatically: run `qnbd check");
    }
  }

  private static void setL2(RebuildImage image, long entry) {
    image.bytes().putLong(image.l2At(image.activeL1Entries().getFirst()), entry);
  }

  @Test
  void refusesMoreReferencesThanCanBeCounted() throws IOException {
    RebuildImage image = small(1);
    int l2At = image.l2At(image.activeL1Entries().getFirst());
    image.bytes().putLong(l2At, image.bytes().getLong(l2At + 8));
    requireRefused(image, "2 references, more than its refcounts of 1 bits can count");
  }

  @Test
  void refusesReferencesBehindTheRefcountTable() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 512, 64, 64 * KIB, 1, null, null);
    ImageMaker.preallocate(file, Long.MAX_VALUE);
    file.setLength(4097L * 512);
    RebuildImage image = new RebuildImage(file);
    setL2(image, L2Entry.data(4096L * 512));
    requireRefused(image, "its refcount table ends with cluster 4095, but cluster 4096");
  }
}
