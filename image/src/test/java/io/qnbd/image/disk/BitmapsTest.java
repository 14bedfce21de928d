package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.check.Checker;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.RawBitmaps;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Bitmaps of images that are written to: they say exactly what was changed, and after a power cut
 * they say that or that they can't be believed.
 */
final class BitmapsTest {
  private static final int KIB = 1 << 10;
  static final int CUTS_DEFAULT = 4_000;
  private static final int CUTS_PER_RUN = 60;

  /**
   * A kind of image.
   *
   * @param filler bytes of an unknown header extension, which decides where the bitmaps' one comes
   *     to lie; 0 for none
   */
  record Case(ImageShape shape, int filler) {}

  static Stream<Case> cases() {
    ImageShape tiny = ImageShape.of(3, 512, 16, 192 * KIB + 512);
    ImageShape usual = ImageShape.of(3, 4096, 16, 768 * KIB);
    return Stream.of(
        new Case(tiny, 0),
        new Case(tiny.withBatches(0, 0), 64),
        new Case(tiny.withLazyRefcounts(), 0),
        new Case(tiny.with(Preparation.COMPRESSED).withBatches(3, 1), 0),
        new Case(ImageShape.of(3, 512, 64, 192 * KIB), 0),
        new Case(usual, 0),
        new Case(usual.withBatches(2, 1), 376),
        new Case(usual.with(Backing.RAW_SHORTER), 0),
        new Case(usual.withLazyRefcounts(), 384),
        new Case(usual.with(Place.LUKS), 0),
        new Case(usual.with(Place.DATA_FILE), 0),
        new Case(usual.with(Place.RAW_DATA_FILE).withBatches(2, 1), 0),
        new Case(ImageShape.of(3, 16384, 16, 768 * KIB).withExtendedL2(), 0),
        new Case(ImageShape.of(3, 65536, 16, 8 << 20), 392));
  }

  private static MemoryStorage make(Case kind, Engine engine, SeededRandom random)
      throws IOException {
    byte[] contents = new byte[kind.shape().diskBytes()];
    Pattern.scatter(random, contents);
    MemoryStorage file = kind.shape().make(contents);
    if (kind.filler() > 0) {
      ByteBuffer extension = ByteBuffer.allocate(8 + kind.filler());
      extension.putInt(0x71717171).putInt(kind.filler());
      file.write(ByteBuffer.wrap(file.bytes(100, 4)).getInt(), extension.clear());
    }
    try (DiskImage image = engine.open(file)) {
      image.write(1000, ByteBuffer.wrap(random.bytes(5000)));
    }
    return file;
  }

  @ParameterizedTest
  @MethodSource("cases")
  void sayWhatWasChanged(Case kind) {
    Seeds.run("BitmapsTest " + kind, Seeds.count("qnbd.bitmapModels", 6), seed -> use(kind, seed));
  }

  private static void use(Case kind, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Engine engine = new Engine(kind.shape(), random);
    MemoryStorage file = make(kind, engine, random);
    BitmapBook book = new BitmapBook();
    for (int session = 0; session < 5; session++) {
      try (DiskImage image = engine.open(file)) {
        BitmapUser user = new BitmapUser(random, image, book, kind.shape());
        user.check();
        for (int step = random.below(12); step > 0; step--) {
          switch (random.below(12)) {
            case 0 -> user.resize();
            case 1, 2, 3, 4 -> user.changeBitmaps();
            default -> user.changeDisk();
          }
          user.check();
        }
      }
      book.closed();
      checkAtRest(engine, file, book);
    }
  }

  private static void checkAtRest(Engine engine, MemoryStorage file, BitmapBook book)
      throws IOException {
    RawQcow2 image = engine.oracle(file);
    RawQcow2.Findings findings = image.check();
    assertTrue(findings.clean(), findings::toString);
    CheckReport report = Checker.check(file);
    assertTrue(report.clean(), () -> "the engine's own check: " + report.findings());
    book.checkAtRest(RawBitmaps.read(image));
  }

  @ParameterizedTest
  @MethodSource("cases")
  void neverMissAChangeAfterAPowerCut(Case kind) {
    int share = Seeds.count("qnbd.bitmapCuts", CUTS_DEFAULT) / (int) cases().count();
    Seeds.run("BitmapsTest cut " + kind, share / CUTS_PER_RUN + 1, seed -> cutOften(kind, seed));
  }

  /** A file as it may be found. */
  private record Cut(
      MemoryStorage file,
      @Nullable MemoryStorage data,
      BitmapBook.Allowed bitmaps,
      long operation) {}

  private static void cutOften(Case kind, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Engine engine = new Engine(kind.shape(), random);
    CrashStorage storage = new CrashStorage(make(kind, engine, random));
    BitmapBook book = new BitmapBook();
    List<Cut> cuts = new ArrayList<>();
    SeededRandom chances = random.split();
    CrashStorage.Watcher watcher =
        (operation, file) -> {
          int chance = operation == Operation.SYNC ? 20 : 8;
          while (cuts.size() < CUTS_PER_RUN && chances.chance(chance)) {
            cuts.add(
                new Cut(
                    file.cut(chances), engine.cutData(chances), book.allowed(), file.operations()));
          }
        };
    for (int session = 0; session < 12 && cuts.size() < CUTS_PER_RUN; session++) {
      storage.watch(watcher);
      try (DiskImage image = engine.open(storage)) {
        BitmapUser user = new BitmapUser(random, image, book, kind.shape());
        for (int step = random.below(10); step > 0; step--) {
          switch (random.below(10)) {
            case 0 -> user.resize();
            case 1, 2, 3, 4 -> user.changeBitmaps();
            default -> user.changeDisk();
          }
        }
        book.beginClose();
      }
      book.closed();
      storage.watch(null);
      checkAtRest(engine, storage.contents(), book);
    }
    for (Cut cut : cuts) {
      try {
        verify(engine.with(cut.data()), cut, random);
      } catch (AssertionError | IOException | RuntimeException e) {
        throw new AssertionError("cut at operation " + cut.operation() + ": " + e, e);
      }
    }
  }

  private static void verify(Engine engine, Cut cut, SeededRandom random) throws IOException {
    RawQcow2 image = engine.oracle(cut.file());
    RawQcow2.Findings findings = image.check();
    assertEquals(List.of(), findings.corruptions(), "after the cut");
    List<RawBitmaps.Found> found = RawBitmaps.read(image);
    boolean none = (cut.file().bytes(95, 1)[0] & 1) == 0;
    cut.bitmaps().check(found, none);
    try (DiskImage again = engine.open(cut.file())) {
      assertEquals(
          found.stream().filter(bitmap -> !bitmap.inUse()).count(),
          again.consistentBitmaps().size());
      again.write(0, ByteBuffer.wrap(random.bytes(512)));
      if (random.chance(30)) {
        again.bitmaps().add("after", 512, true);
        again.write(512, ByteBuffer.wrap(random.bytes(512)));
      }
      if (random.chance(30) && !found.isEmpty()) {
        again.bitmaps().remove(found.getFirst().name());
      }
    }
    RawQcow2 after = engine.oracle(cut.file());
    assertEquals(List.of(), after.check().corruptions(), "after using it again");
    long leaked = none ? Long.MAX_VALUE : findings.leaks();
    assertTrue(
        after.check().leaks() <= leaked,
        () -> "leaks: " + findings.leaks() + " before, " + after.check().leaks() + " after");
    for (RawBitmaps.Found bitmap : RawBitmaps.read(after)) {
      int written = bitmap.name().equals("after") ? 1 : 0; // it came between the two writes
      assertTrue(
          bitmap.inUse() || !bitmap.auto() || bitmap.bits().get(written),
          () -> bitmap + " misses a change");
    }
  }
}
