package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.SnapshotMaker;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Images whose tables a stranger could have made: a guest's request that would do harm gets an
 * error, the image is marked corrupt, nothing else in the file changes, and what is healthy can
 * still be read.
 */
final class DamagedTablesTest {
  private static final int CLUSTER = 4096;
  private static final int DISK = 64 * CLUSTER;
  private static final int L1_OFFSET_AT = 40;
  private static final int REFCOUNT_TABLE_OFFSET_AT = 48;
  private static final int SNAPSHOTS_OFFSET_AT = 64;
  private static final int INCOMPATIBLE_AT = 72;
  private static final long COPIED = 1L << 63;
  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  /** Guest clusters 0 to 7 have data, the others nothing. */
  private static final int WRITTEN = 8;

  private static final long NEW = 40L * CLUSTER;

  /** An image to be damaged. */
  static final class Victim {
    final MemoryStorage file;

    Victim(int version, boolean snapshot) throws IOException {
      file = ImageMaker.empty(version, CLUSTER, 16, DISK, 1, null, null);
      try (DiskImage image = open(file, OpenOptions.DEFAULT)) {
        image.write(0, ByteBuffer.wrap(Pattern.fill(1, WRITTEN * CLUSTER)));
      }
      if (snapshot) {
        SnapshotMaker.take(file, "before");
        try (DiskImage image = open(file, OpenOptions.DEFAULT)) {
          image.write(0, ByteBuffer.wrap(Pattern.fill(2, 2 * CLUSTER)));
        }
      }
    }

    long longAt(long at) {
      return ByteBuffer.wrap(file.bytes(at, 8)).getLong();
    }

    void set(long at, long value) throws IOException {
      file.write(at, ByteBuffer.allocate(8).putLong(0, value));
    }

    long l1At() {
      return longAt(L1_OFFSET_AT);
    }

    long l2At() {
      return longAt(l1At()) & OFFSET_MASK;
    }

    long entryAt(int guestCluster) {
      return l2At() + 8L * guestCluster;
    }

    long tableAt() {
      return longAt(REFCOUNT_TABLE_OFFSET_AT);
    }

    long blockAt() {
      return longAt(tableAt());
    }

    long snapshotsEntryAt(int guestCluster) {
      return (longAt(longAt(longAt(SNAPSHOTS_OFFSET_AT))) & OFFSET_MASK) + 8L * guestCluster;
    }

    /** Where the first snapshot has the data of a guest cluster. */
    long snapshotsCluster(int guestCluster) {
      return longAt(snapshotsEntryAt(guestCluster)) & OFFSET_MASK;
    }

    void setRefcount(long offset, int count) throws IOException {
      file.write(
          blockAt() + 2 * (offset / CLUSTER), ByteBuffer.allocate(2).putShort(0, (short) count));
    }
  }

  private static DiskImage open(MemoryStorage file, OpenOptions options) throws IOException {
    return Qcow2Image.open(
        file,
        options,
        (name, _) -> {
          throw new AssertionError(name);
        });
  }

  interface Damage {
    void on(Victim victim) throws IOException;
  }

  interface Action {
    void on(DiskImage image) throws IOException;
  }

  /** A kind of damage, and a request that must not make it worse. */
  record Case(String name, String sentence, Damage damage, Action action) {
    @Override
    public String toString() {
      return name;
    }
  }

  private static void write(DiskImage image, long offset) throws IOException {
    image.write(offset, ByteBuffer.wrap(Pattern.fill(9, CLUSTER)));
  }

  private static Case inPlace(String name, String sentence, Damage damage) {
    return new Case(name, sentence, damage, image -> write(image, 0));
  }

  private static Case allocating(String name, String sentence, Damage damage) {
    return new Case(name, sentence, damage, image -> write(image, NEW));
  }

  static Stream<Case> cases() {
    return Stream.of(l1Cases(), l2Cases(), refcountCases()).flatMap(List::stream);
  }

  private static List<Case> l1Cases() {
    return List.of(
        inPlace("L1 entry of nothing but COPIED", "L1 entry 0", v -> v.set(v.l1At(), COPIED)),
        allocating("the same, new cluster", "L1 entry 0", v -> v.set(v.l1At(), COPIED)),
        inPlace("L1 entry with reserved bits", "L1 entry 0", v -> v.set(v.l1At(), v.l2At() | 2)),
        inPlace("L2 table not at a cluster", "L1 entry 0", v -> v.set(v.l1At(), v.l2At() + 512)),
        inPlace("L2 table past the end", "past the end", v -> v.set(v.l1At(), 1L << 40 | COPIED)),
        allocating(
            "L1 table is its own L2 table",
            "L2 table overlaps the L1 table",
            v -> v.set(v.l1At(), v.l1At() | COPIED)),
        allocating(
            "refcount table as L2 table",
            "L2 table overlaps the refcount table",
            v -> v.set(v.l1At(), v.tableAt() | COPIED)),
        allocating(
            "refcount block as L2 table",
            "L2 table overlaps the refcount block",
            v -> v.set(v.l1At(), v.blockAt() | COPIED)));
  }

  private static List<Case> l2Cases() {
    return List.of(
        inPlace("L2 entry of nothing but COPIED", "names no", v -> v.set(v.entryAt(0), COPIED)),
        inPlace("data past the end", "names no", v -> v.set(v.entryAt(0), 1L << 40)),
        inPlace(
            "data in the L2 table itself",
            "overlaps the L2 table",
            v -> v.set(v.entryAt(0), v.l2At() | COPIED)),
        inPlace(
            "data in the L1 table",
            "overlaps the L1 table",
            v -> v.set(v.entryAt(0), v.l1At() | COPIED)),
        inPlace(
            "data in the refcount table",
            "overlaps the refcount table",
            v -> v.set(v.entryAt(0), v.tableAt() | COPIED)),
        inPlace(
            "data in a refcount block",
            "overlaps the refcount block",
            v -> v.set(v.entryAt(0), v.blockAt() | COPIED)),
        new Case(
            "trim of the L1 table",
            "overlaps the L1 table",
            v -> v.set(v.entryAt(3), v.l1At()),
            image -> image.trim(3L * CLUSTER, CLUSTER)),
        new Case(
            "zeroes over a refcount block",
            "overlaps the refcount block",
            v -> v.set(v.entryAt(3), v.blockAt() | COPIED),
            image -> image.writeZeroes(3L * CLUSTER, CLUSTER, ZeroMode.KEEP_ALLOCATED)),
        inPlace(
            "compressed data in the refcount block",
            "overlaps the refcount block",
            v -> v.set(v.entryAt(0), 1L << 62 | v.blockAt())),
        inPlace(
            "two owners of one cluster",
            "theirs alone",
            v -> v.set(v.entryAt(5), v.longAt(v.entryAt(2)))),
        new Case(
            "a bad entry that is read",
            "names no cluster",
            v -> v.set(v.entryAt(2), 1L << 40),
            image -> image.read(2L * CLUSTER, ByteBuffer.allocate(CLUSTER))));
  }

  private static List<Case> refcountCases() {
    return List.of(
        inPlace(
            "COPIED but counted twice",
            "refcount of 2",
            v -> v.setRefcount(v.longAt(v.entryAt(4)) & OFFSET_MASK, 2)),
        inPlace(
            "COPIED but counted as free",
            "refcount of 0",
            v -> v.setRefcount(v.longAt(v.entryAt(4)) & OFFSET_MASK, 0)),
        inPlace("L2 table counted twice", "refcount of 2", v -> v.setRefcount(v.l2At(), 2)),
        allocating("L1 table counted as free", "overlaps the L1", v -> v.setRefcount(v.l1At(), 0)),
        allocating(
            "refcount block counted as free",
            "overlaps the refcount block",
            v -> v.setRefcount(v.blockAt(), 0)),
        allocating("no refcount block", "refcount of 0", v -> v.set(v.tableAt(), 0)),
        allocating(
            "refcount block not at a cluster",
            "refcount table entry 0",
            v -> v.set(v.tableAt(), v.blockAt() + 512)),
        allocating(
            "refcount block past the end",
            "refcount table entry 0",
            v -> v.set(v.tableAt(), 1L << 40)),
        allocating(
            "refcount table is its own block",
            "refcount block overlaps the refcount table",
            v -> v.set(v.tableAt(), v.tableAt())),
        allocating(
            "one block for two ranges",
            "refcount block overlaps the refcount block",
            v -> v.set(v.tableAt() + 8, v.blockAt())));
  }

  @ParameterizedTest
  @MethodSource("cases")
  void harmIsRefusedAndTheImageMarked(Case damaged) throws IOException {
    Victim victim = new Victim(3, false);
    damaged.damage().on(victim);
    MemoryStorage file = victim.file;
    byte[] before = file.bytes(0, (int) file.length());
    List<byte[]> readable = readable(file);
    try (DiskImage image = open(file.copy(), OpenOptions.DEFAULT)) {
      String first = refusal(() -> damaged.action().on(image));
      assertTrue(first.contains(damaged.sentence()), first);
      String second = refusal(() -> write(image, NEW));
      assertTrue(second.contains("is corrupt and takes no more writes"), second);
      assertSame(readable, readable(image));
      assertThrows(IOException.class, image::flush);
    } catch (IOException e) {
      assertTrue(String.valueOf(e.getMessage()).contains("takes no more writes"), e.toString());
    }
    DiskImage image = open(file, OpenOptions.DEFAULT);
    assertThrows(IOException.class, () -> damaged.action().on(image));
    assertThrows(IOException.class, image::close);
    assertOnlyMarked(before, file);
    assertThrows(UnsupportedImageException.class, () -> open(file.copy(), OpenOptions.DEFAULT));
    assertSame(readable, readable(file));
  }

  private static String refusal(Executable request) {
    return String.valueOf(assertThrows(IOException.class, request).getMessage());
  }

  private static void assertOnlyMarked(byte[] before, MemoryStorage file) {
    byte[] after = file.bytes(0, before.length);
    assertEquals(2, after[INCOMPATIBLE_AT + 7], "the corrupt bit");
    after[INCOMPATIBLE_AT + 7] = before[INCOMPATIBLE_AT + 7];
    assertArrayEquals(before, after);
  }

  /** What each cluster of the disk reads as; empty where it can't be read. */
  private static List<byte[]> readable(MemoryStorage file) throws IOException {
    try (DiskImage image = open(file.copy(), OpenOptions.DEFAULT.withReadOnly(true))) {
      return readable(image);
    }
  }

  private static List<byte[]> readable(DiskImage image) {
    byte[][] clusters = new byte[DISK / CLUSTER][];
    for (int i = 0; i < clusters.length; i++) {
      ByteBuffer bytes = ByteBuffer.allocate(CLUSTER);
      try {
        image.read((long) i * CLUSTER, bytes);
        clusters[i] = bytes.array();
      } catch (IOException _) {
        clusters[i] = new byte[0];
      }
    }
    return Arrays.asList(clusters);
  }

  private static void assertSame(List<byte[]> expected, List<byte[]> found) {
    for (int i = 0; i < expected.size(); i++) {
      assertArrayEquals(expected.get(i), found.get(i), "guest cluster " + i);
    }
  }

  @Test
  void snapshotTableIsNotWrittenOver() throws IOException {
    Victim victim = new Victim(3, true);
    victim.set(victim.entryAt(0), victim.longAt(SNAPSHOTS_OFFSET_AT) | COPIED);
    byte[] before = victim.file.bytes(0, (int) victim.file.length());
    DiskImage image = open(victim.file, OpenOptions.DEFAULT);
    String sentence = refusal(() -> write(image, 0));
    assertTrue(sentence.contains("overlaps the snapshot table"), sentence);
    assertThrows(IOException.class, image::close);
    assertOnlyMarked(before, victim.file);
  }

  /** The refcount block may have lost what it said of the end of the file. */
  @Test
  void uncountedEndOfTheFileIsNotCutOff() throws IOException {
    Victim victim = new Victim(3, false);
    for (int i = 0; i < WRITTEN; i++) {
      victim.setRefcount(victim.longAt(victim.entryAt(i)) & OFFSET_MASK, 0);
    }
    List<byte[]> before = readable(victim.file);
    try (DiskImage image = open(victim.file, OpenOptions.DEFAULT)) {
      image.flush();
    }
    assertSame(before, readable(victim.file));
  }

  @Test
  void endThatBecameUnusedIsCutOff() throws IOException {
    Victim victim = new Victim(3, false);
    long bytes = victim.file.length();
    try (DiskImage image = open(victim.file, OpenOptions.DEFAULT)) {
      image.trim(0, WRITTEN * CLUSTER);
    }
    assertEquals(bytes - WRITTEN * CLUSTER, victim.file.length());
  }

  static Stream<Case> compactions() {
    return Stream.of(
        new Case(
            "data counted as free",
            "refcount of 0",
            v -> v.setRefcount(v.longAt(v.entryAt(WRITTEN - 1)) & OFFSET_MASK, 0),
            image -> image.compact(ProgressListener.NONE)),
        new Case(
            "a snapshot's data counted as free",
            "counted as free",
            v -> v.setRefcount(v.snapshotsCluster(0), 0),
            image -> image.compact(ProgressListener.NONE)),
        new Case(
            "L2 table counted as free",
            "refcount of 0",
            v -> v.setRefcount(v.l2At(), 0),
            image -> image.compact(ProgressListener.NONE)),
        new Case(
            "L1 table counted as free",
            "overlaps the L1 table",
            v -> v.setRefcount(v.l1At(), 0),
            image -> image.compact(ProgressListener.NONE)));
  }

  @ParameterizedTest
  @MethodSource("compactions")
  void compactingLosesNothingThatIsCountedAsFree(Case damaged) throws IOException {
    Victim victim = new Victim(3, true);
    damaged.damage.on(victim);
    List<byte[]> before = readable(victim.file);
    DiskImage image = open(victim.file, OpenOptions.DEFAULT);
    String sentence = refusal(() -> damaged.action.on(image));
    assertTrue(sentence.contains(damaged.sentence), sentence);
    assertThrows(IOException.class, image::close);
    assertSame(before, readable(victim.file));
  }

  static Stream<Case> deletions() {
    return Stream.of(
        new Case(
            "a snapshot names the disk's data",
            "counted as if a snapshot alone",
            v -> v.set(v.snapshotsEntryAt(5), v.longAt(v.entryAt(0)) & OFFSET_MASK),
            image -> image.snapshots().delete("before")),
        new Case(
            "a snapshot names what it shares, twice",
            "counted as if a snapshot alone",
            v -> v.set(v.snapshotsEntryAt(5), v.longAt(v.snapshotsEntryAt(6)) & OFFSET_MASK),
            image -> image.snapshots().delete("before")),
        new Case(
            "a snapshot names the disk's L2 table",
            "overlaps the L2 table",
            v -> v.set(v.snapshotsEntryAt(5), v.l2At()),
            image -> image.snapshots().delete("before")),
        new Case(
            "the disk names a snapshot's L1 table",
            "overlaps the snapshot's L1 table",
            v -> v.set(v.entryAt(20), v.longAt(v.longAt(SNAPSHOTS_OFFSET_AT)) | COPIED),
            image -> image.snapshots().delete("before")),
        new Case(
            "the disk names the snapshot table",
            "overlaps the snapshot table",
            v -> v.set(v.entryAt(20), v.longAt(SNAPSHOTS_OFFSET_AT) | COPIED),
            image -> image.snapshots().delete("before")));
  }

  @ParameterizedTest
  @MethodSource("deletions")
  void deletingASnapshotGivesNothingAwayThatIsInUse(Case damaged) throws IOException {
    Victim victim = new Victim(3, true);
    damaged.damage.on(victim);
    List<byte[]> before = readable(victim.file);
    byte[] bytes = victim.file.bytes(0, (int) victim.file.length());
    DiskImage image = open(victim.file, OpenOptions.DEFAULT);
    String sentence = refusal(() -> damaged.action.on(image));
    assertTrue(sentence.contains(damaged.sentence), sentence);
    assertThrows(IOException.class, image::close);
    assertSame(before, readable(victim.file));
    assertOnlyMarked(bytes, victim.file);
  }

  @Test
  void readerNeitherMarksNorStops() throws IOException {
    Victim victim = new Victim(3, false);
    victim.set(victim.entryAt(2), 1L << 40);
    byte[] before = victim.file.bytes(0, (int) victim.file.length());
    try (DiskImage image = open(victim.file, OpenOptions.DEFAULT.withReadOnly(true))) {
      assertThrows(
          CorruptImageException.class,
          () -> image.read(2L * CLUSTER, ByteBuffer.allocate(CLUSTER)));
      image.read(0, ByteBuffer.allocate(CLUSTER));
    }
    assertArrayEquals(before, victim.file.bytes(0, before.length));
  }

  @Test
  void version2HasNoBitAndTakesNoMoreWritesAllTheSame() throws IOException {
    Victim victim = new Victim(2, false);
    victim.set(victim.l1At(), COPIED);
    byte[] before = victim.file.bytes(0, (int) victim.file.length());
    DiskImage image = open(victim.file, OpenOptions.DEFAULT);
    assertThrows(CorruptImageException.class, () -> write(image, 0));
    assertTrue(refusal(() -> write(image, NEW)).contains("takes no more writes"));
    assertThrows(IOException.class, image::close);
    assertArrayEquals(before, victim.file.bytes(0, before.length));
  }

  /** A crash while a snapshot is taken leaves such flags where there is no dirty bit. */
  @Test
  void version2WithAStaleFlagIsCopiedOnWrite() throws IOException {
    Victim victim = new Victim(2, false);
    long host = victim.longAt(victim.entryAt(0)) & OFFSET_MASK;
    victim.setRefcount(host, 2);
    byte[] old = victim.file.bytes(host, CLUSTER);
    try (DiskImage image = open(victim.file, OpenOptions.DEFAULT)) {
      write(image, 0);
    }
    assertArrayEquals(old, victim.file.bytes(host, CLUSTER));
    assertArrayEquals(
        Pattern.fill(9, CLUSTER), Arrays.copyOf(new RawQcow2(victim.file).disk(null), CLUSTER));
  }

  @Test
  void twoTablesWithOneClusterAreFoundByTheWholeCheckOnly() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 512, 16, 65536, 1, null, null);
    try (DiskImage image = open(file, OpenOptions.DEFAULT)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, 65536)));
    }
    RawQcow2 tables = new RawQcow2(file);
    byte[] entry = file.bytes(tables.l2EntryOffset(0), 8);
    file.write(tables.l2EntryOffset(65536 - 512), ByteBuffer.wrap(entry));
    String sentence =
        refusal(() -> open(file.copy(), OpenOptions.DEFAULT.withOverlapCheck(OverlapCheck.ALL)));
    assertTrue(sentence.contains("1 corruption"), sentence);
  }

  /** What lies at the end of the file is looked up when there is something to give back there. */
  @ParameterizedTest
  @ValueSource(longs = {CLUSTER + 512, 1L << 40, -512})
  void aDamagedRefcountTableHarmsNobodyWhoOnlyReads(long entry) throws IOException {
    Victim victim = new Victim(3, false);
    victim.set(victim.tableAt(), entry);
    byte[] before = victim.file.bytes(0, (int) victim.file.length());
    try (DiskImage image = open(victim.file, OpenOptions.DEFAULT)) {
      ByteBuffer read = ByteBuffer.allocate(WRITTEN * CLUSTER);
      image.read(0, read);
      assertArrayEquals(Pattern.fill(1, WRITTEN * CLUSTER), read.array());
      image.flush();
    }
    assertArrayEquals(before, victim.file.bytes(0, (int) victim.file.length()));
  }
}
