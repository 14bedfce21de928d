package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.Preallocation;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.create.ImageCreator;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

final class CheckerTest {
  private static final long COPIED = 1L << 63;

  /** What {@code qemu-img check --output=json} says about the samples. */
  static Stream<Arguments> cleanSamples() {
    return Stream.of(
        Arguments.of("v2-snapshot", 28672, 512, 36, 0),
        Arguments.of("v3-compressed", 69632, 48, 24, 20),
        Arguments.of("v3-bitmaps", 53248, 256, 3, 0),
        Arguments.of("v3-subclusters", 196608, 64, 7, 0));
  }

  @ParameterizedTest
  @MethodSource("cleanSamples")
  void agreesWithQemuOnCleanImages(
      String name, long end, long total, long allocated, long compressed) throws IOException {
    assertEquals(
        new CheckReport(0, 0, List.of(), end, total, allocated, compressed),
        Sample.load(name).check());
  }

  /** A change to a sample, and what a finding must then say. */
  interface Damage {
    void apply(Sample sample) throws IOException;
  }

  private static Arguments damage(String name, String expected, Damage damage) {
    return Arguments.of(name, expected, damage);
  }

  static Stream<Arguments> mappingDamages() {
    String v2 = "v2-snapshot";
    String v3 = "v3-compressed";
    return Stream.of(
        damage(v2, "L1 table, entry 0: 0x", s -> s.flip(s.l1At(), 1L << 57)),
        damage(v2, "has reserved bits set", s -> s.flip(s.l1At(), 1)),
        damage(v2, "L2 table at 0x0", s -> s.set(s.l1At(), COPIED)),
        damage(v2, "past the end of the file", s -> s.set(s.l1At(), COPIED | 1L << 40)),
        damage(v2, "has COPIED clear", s -> s.flip(s.l1At(), COPIED)),
        damage(v3, "expected a multiple of 4096", s -> s.flip(s.l1At(), 512)),
        damage(v3, "has COPIED set", s -> s.flip(s.l2At(), COPIED)),
        damage(v3, "has COPIED clear", s -> s.flip(s.l2At() + 8, COPIED)),
        damage(v3, "has reserved bits set", s -> s.flip(s.l2At(), 1L << 58)),
        damage(v2, "has reserved bits set", s -> s.flip(s.l2At(), 1)),
        damage(v3, "data at 0x", s -> s.flip(s.l2At(), 512)),
        damage(v3, "past the end of the file", s -> s.flip(s.l2At(), 1L << 40)),
        damage(v3, "sole owner of nothing", s -> s.set(s.l2At() + 8 * 47, COPIED)),
        damage(v3, "overlaps L1 table", s -> s.set(s.l2At() + 8 * 47, COPIED | s.l1At())),
        damage(v3, "overlaps L2 table", s -> s.set(s.l2At() + 8 * 47, COPIED | s.l2At())),
        damage(v3, "compressed, but flagged", s -> s.flip(s.l2At() + 8 * 10, COPIED)),
        damage("v3-subclusters", "both allocated and zero", s -> s.flip(s.l2At() + 8, 2L << 32)));
  }

  static Stream<Arguments> otherDamages() {
    String v2 = "v2-snapshot";
    String v3 = "v3-compressed";
    String bitmaps = "v3-bitmaps";
    return Stream.of(
        damage(v3, "the refcount is 0", s -> s.set(s.refcountTableAt(), 0)),
        damage(v3, "expected a multiple", s -> s.flip(s.refcountTableAt(), 512)),
        damage(v3, "has reserved bits set", s -> s.flip(s.refcountTableAt(), 1)),
        damage(v3, "past the end", s -> s.set(s.refcountTableAt() + 8, 1L << 40)),
        damage(
            v3,
            "refcount block overlaps refcount block",
            s -> s.set(s.refcountTableAt() + 8, s.refcountBlockAt())),
        damage(v3, "cluster 0 (0x0): the refcount is 0", s -> s.set(s.refcountBlockAt(), 0)),
        damage(v3, "snapshot 0, L1 table: L1 table at", s -> s.flip(s.snapshotsAt(), 512)),
        damage(v3, "overlaps L1 table", s -> s.set(s.snapshotsAt(), s.l1At())),
        damage(v3, "4294967295 entries", s -> s.bytes().putInt(s.snapshotsAt() + 8, -1)),
        damage(v3, "8 bytes of extra data", CheckerTest::shortenExtraData),
        damage(v2, "the references are", s -> s.set(s.snapshotsAt(), 0)),
        damage(bitmaps, "expected 1 to 65535", s -> s.bytes().putInt(bitmapsAt(s), 0)),
        damage(bitmaps, "directory of 67108865", s -> s.set(bitmapsAt(s) + 8, (64 << 20) + 1)),
        damage(bitmaps, "past the end", s -> s.set(bitmapsAt(s) + 16, 1L << 40)),
        damage(bitmaps, "expected 2 in", s -> s.bytes().putInt(bitmapsAt(s), 2)),
        damage(bitmaps, "exceeds the directory", s -> s.set(directoryAt(s) + 16, -1)),
        damage(bitmaps, "has reserved bits", s -> s.set(tableAt(s), 2)),
        damage(bitmaps, "bitmap overlaps L1 table", s -> s.set(tableAt(s), s.l1At())));
  }

  private static void shortenExtraData(Sample sample) {
    sample.bytes().putInt(HeaderLayout.SNAPSHOT_COUNT_AT, 1);
    sample.bytes().putInt(sample.snapshotsAt() + 36, 8);
  }

  /** Where the bitmaps extension's data stands. */
  private static int bitmapsAt(Sample sample) {
    int at = sample.bytes().getInt(HeaderLayout.HEADER_BYTES_AT);
    while (sample.bytes().getInt(at) != HeaderExtension.BITMAPS) {
      at += 8 + ((sample.bytes().getInt(at + 4) + 7) & ~7);
    }
    return at + 8;
  }

  private static int directoryAt(Sample sample) {
    return (int) sample.bytes().getLong(bitmapsAt(sample) + 16);
  }

  private static int tableAt(Sample sample) {
    return (int) sample.bytes().getLong(directoryAt(sample));
  }

  @ParameterizedTest(name = "{0}: {1}")
  @MethodSource({"mappingDamages", "otherDamages"})
  void findsCorruptions(String name, String expected, Damage damage) throws IOException {
    Sample sample = Sample.load(name);
    damage.apply(sample);
    CheckReport report = sample.check();
    assertTrue(report.corruptions() > 0, report::toString);
    assertTrue(
        report.findings().stream().anyMatch(finding -> finding.contains(expected)),
        report::toString);
  }

  @Test
  void findsLeaks() throws IOException {
    Sample sample = Sample.load("v3-bitmaps");
    sample.set(HeaderLayout.AUTOCLEAR_AT, 0);
    CheckReport report = sample.check();
    assertEquals(0, report.corruptions());
    assertEquals(3, report.leaks(), "directory, table and data of the bitmap");
  }

  @Test
  void doesNotCallClustersPastTheEndOfTheFileLeaks() throws IOException {
    Sample sample = Sample.load("v3-compressed");
    sample.set(sample.refcountBlockAt() + 8 * 100, 1);
    assertTrue(sample.check().clean());
  }

  @Test
  void theFileMayEndInsideItsLastCluster() throws IOException {
    Sample sample = Sample.load("v3-compressed");
    int length = sample.contents().length;
    assertTrue(sample.checkCut(length - 4095).clean());
    assertEquals(1, sample.checkCut(length - 4096).corruptions());
  }

  @Test
  void checksWhatCannotBeOpened() throws IOException {
    Sample dirty = Sample.load("v3-compressed");
    dirty.set(HeaderLayout.INCOMPATIBLE_AT, FeatureBits.DIRTY | FeatureBits.CORRUPT);
    CheckReport report = dirty.check();
    assertTrue(report.clean());
    assertEquals(2, report.findings().size());
    Sample unknown = Sample.load("v3-compressed").set(HeaderLayout.INCOMPATIBLE_AT, 1L << 20);
    assertThrows(UnsupportedImageException.class, unknown::check);
  }

  @Test
  void overflowingRefcountsAreCorruptions() throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(
        file,
        new CreateOptions(
            ImageFormat.QCOW2, 8192L, 512, 3, 1, false, false, null, null, Preallocation.METADATA));
    Sample sample = Sample.of(file.bytes(0, (int) file.length()));
    sample.set(sample.l2At() + 8, sample.bytes().getLong(sample.l2At()));
    CheckReport report = sample.check();
    assertEquals(1, report.corruptions(), report::toString);
    assertEquals(1, report.leaks(), report::toString);
  }

  @Test
  void readsATableOnceHoweverManyReferencesItHas() throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(file, CreateOptions.qcow2(1L << 50));
    Sample sample = Sample.of(file.bytes(0, (int) file.length()));
    int l1Entries = sample.bytes().getInt(HeaderLayout.L1_ENTRIES_AT);
    MemoryStorage damaged = MemoryStorage.of(sample.contents());
    long l2At = (file.length() + 65535) & -65536;
    ByteBuffer l1 = ByteBuffer.allocate(8 * l1Entries);
    while (l1.hasRemaining()) {
      l1.putLong(COPIED | l2At);
    }
    damaged.write(sample.l1At(), l1.flip());
    damaged.setLength(l2At + 65536);
    CheckReport report = Checker.check(damaged);
    assertTrue(report.corruptions() > l1Entries, report::toString);
    assertEquals(CheckReport.FINDINGS_MAX, report.findings().size());
    assertTrue(damaged.count(Operation.READ) < 5000, "read " + damaged.count(Operation.READ));
  }

  @Test
  void refusesToTakeMoreMemoryThanAllowed() throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(
        file,
        new CreateOptions(
            ImageFormat.QCOW2,
            1L << 20,
            512,
            3,
            16,
            false,
            false,
            null,
            null,
            Preallocation.METADATA));
    IOException e = assertThrows(IOException.class, () -> Checker.check(file, 4));
    assertTrue(String.valueOf(e.getMessage()).contains("memory"));
    assertTrue(Checker.check(file, 16).clean());
  }

  @Test
  void mutatedImagesEndInAReportOrASentence() throws IOException {
    for (String name : Sample.NAMES) {
      byte[] contents = Sample.load(name).contents();
      Seeds.run("mutate " + name, 600, seed -> mutate(contents, new SeededRandom(seed)));
    }
  }

  private static void mutate(byte[] contents, SeededRandom random) throws IOException {
    Sample sample = Sample.of(contents);
    int[] areas = {
      0,
      HeaderLayout.V3_BYTES,
      sample.l1At(),
      sample.l2At(),
      sample.refcountTableAt(),
      sample.refcountBlockAt(),
      sample.snapshotsAt(),
      random.below(contents.length)
    };
    for (int edits = random.between(1, 6); edits > 0; edits--) {
      int at = areas[random.below(areas.length)] + random.below(64);
      if (at < contents.length) {
        sample.bytes().put(at, (byte) random.skewed(0, 255));
      }
    }
    try {
      CheckReport report = sample.check();
      assertTrue(report.findings().size() <= CheckReport.FINDINGS_MAX);
    } catch (IOException e) {
      assertTrue(String.valueOf(e.getMessage()).length() > 10, e::toString);
    }
    assertDoesNotThrow(() -> inspected(sample));
  }

  private static boolean inspected(Sample sample) {
    try {
      Inspector.inspect(Path.of("sample"), MemoryStorage.of(sample.contents()), null, 0);
      return true;
    } catch (IOException _) {
      return false;
    }
  }
}
