package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.BitmapMaker;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.SnapshotMaker;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Bitmaps that name what is not theirs, in images that a stranger could have made: whatever is done
 * with such an image, the disk, its snapshot and the format's tables stay as they are.
 */
final class HostileBitmapsTest {
  private static final int CLUSTER = 4096;
  private static final int DISK = 64 * CLUSTER;
  private static final int WRITTEN = 8;
  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  /** In the first cluster; where else is one of its fields. */
  private static final int L1_OFFSET_AT = 40;

  private static final int REFCOUNT_TABLE_OFFSET_AT = 48;
  private static final int SNAPSHOTS_OFFSET_AT = 64;
  private static final int INCOMPATIBLE_AT = 72;

  /** What a bitmap may name that is not its own. */
  enum Foreign {
    HEADER,
    L1_TABLE,
    L2_TABLE,
    REFCOUNT_TABLE,
    REFCOUNT_BLOCK,
    SNAPSHOT_TABLE,
    SNAPSHOT_L1_TABLE,
    SNAPSHOT_DATA,
    DATA,
    FREE,
    PAST_THE_END,
    DIRECTORY,
    OTHER_TABLE,
    ITSELF
  }

  /** Which of a bitmap's references names it. */
  enum Reference {
    DIRECTORY,
    TABLE,
    DATA
  }

  /** What is done with the image then. */
  enum Action {
    WRITE,
    REMOVE,
    CLEAR,
    DISABLE,
    MERGE,
    REPLACE,
    GROW,
    SHRINK
  }

  record Case(Foreign foreign, Reference reference, boolean countedTwice, boolean inUse) {}

  static Stream<Case> cases() {
    List<Case> cases = new ArrayList<>();
    for (Reference reference : Reference.values()) {
      for (Foreign foreign : Foreign.values()) {
        cases.add(new Case(foreign, reference, false, false));
        cases.add(new Case(foreign, reference, true, false));
        cases.add(new Case(foreign, reference, false, true));
      }
    }
    return cases.stream();
  }

  /** An image with a snapshot and two bitmaps, one of which is to become a hostile one. */
  private static final class Victim {
    final MemoryStorage file = ImageMaker.empty(3, CLUSTER, 16, DISK, 1, null, null);
    final BitmapMaker.Places places;

    Victim() throws IOException {
      byte[] disk = Pattern.fill(1, WRITTEN * CLUSTER);
      try (DiskImage image = open(file)) {
        image.write(0, ByteBuffer.wrap(disk));
      }
      SnapshotMaker.take(file, "before");
      try (DiskImage image = open(file)) {
        image.write(0, ByteBuffer.wrap(Pattern.fill(2, 2 * CLUSTER)));
      }
      BitSet bits = new BitSet();
      bits.set(3, 40);
      places =
          BitmapMaker.add(
              file,
              List.of(
                  new BitmapMaker.Bitmap("hostile", 9, bits),
                  new BitmapMaker.Bitmap("other", 12, bits)));
    }

    long longAt(long at) {
      return ByteBuffer.wrap(file.bytes(at, 8)).getLong();
    }

    void set(long at, long value) throws IOException {
      file.write(at, ByteBuffer.allocate(8).putLong(0, value));
    }

    long l2At() {
      return longAt(longAt(L1_OFFSET_AT)) & OFFSET_MASK;
    }

    long at(Foreign foreign) {
      long snapshotL1 = longAt(longAt(SNAPSHOTS_OFFSET_AT));
      return switch (foreign) {
        case HEADER -> 0;
        case L1_TABLE -> longAt(L1_OFFSET_AT);
        case L2_TABLE -> l2At();
        case REFCOUNT_TABLE -> longAt(REFCOUNT_TABLE_OFFSET_AT);
        case REFCOUNT_BLOCK -> longAt(longAt(REFCOUNT_TABLE_OFFSET_AT));
        case SNAPSHOT_TABLE -> longAt(SNAPSHOTS_OFFSET_AT);
        case SNAPSHOT_L1_TABLE -> snapshotL1;
        case SNAPSHOT_DATA -> longAt(longAt(snapshotL1) & OFFSET_MASK) & OFFSET_MASK;
        case DATA -> longAt(l2At()) & OFFSET_MASK;
        case FREE -> file.length() - CLUSTER; // the caller has made it so
        case PAST_THE_END -> Math.ceilDiv(file.length(), CLUSTER) * CLUSTER; // handed out next
        case DIRECTORY -> places.directory();
        case OTHER_TABLE -> places.tables().get(1);
        case ITSELF -> places.tables().get(0);
      };
    }

    void name(Case kind) throws IOException {
      if (kind.foreign() == Foreign.FREE) {
        file.setLength(file.length() + CLUSTER);
      }
      long at = at(kind.foreign());
      switch (kind.reference()) {
        case DIRECTORY -> {
          if (kind.foreign() == Foreign.DATA || kind.foreign() == Foreign.SNAPSHOT_DATA) {
            // The guest has written one there.
            file.write(at, ByteBuffer.wrap(file.bytes(places.directory(), 512)));
          }
          set(places.extension() + 16, at);
        }
        case TABLE -> set(places.directory(), at);
        case DATA -> set(places.tables().get(0), at);
      }
      if (kind.inUse()) {
        file.write(places.directory() + 12, ByteBuffer.allocate(4).putInt(0, 1));
      }
      if (kind.countedTwice()) {
        long block = longAt(longAt(REFCOUNT_TABLE_OFFSET_AT));
        file.write(block + 2 * (at / CLUSTER), ByteBuffer.allocate(2).putShort(0, (short) 2));
      }
    }
  }

  private static DiskImage open(MemoryStorage file) throws IOException {
    return Qcow2Image.open(
        file,
        OpenOptions.DEFAULT.withRefReserve(0),
        (name, _) -> {
          throw new AssertionError(name);
        });
  }

  @ParameterizedTest
  @MethodSource("cases")
  void nothingThatIsNotTheirsIsLost(Case kind) throws IOException {
    for (Action action : Action.values()) {
      Victim victim = new Victim();
      victim.name(kind);
      MemoryStorage file = victim.file;
      byte[] disk = new RawQcow2(file).disk(null);
      byte[] snapshot = new RawQcow2(file).snapshotDisk(0, null);
      int kept = WRITTEN * CLUSTER; // the rest is written to
      boolean written = false;
      try (DiskImage image = open(file)) {
        act(image, action);
        written = action == Action.WRITE;
      } catch (IOException e) {
        assertTrue(String.valueOf(e.getMessage()).length() > 10, e::toString);
      }
      // Whatever was freed by mistake is handed out again now.
      try (DiskImage image = open(file)) {
        image.write(kept, ByteBuffer.wrap(Pattern.fill(5, WRITTEN * CLUSTER)));
      } catch (IOException e) {
        assertTrue(String.valueOf(e.getMessage()).length() > 10, e::toString);
      }
      RawQcow2 after = new RawQcow2(file);
      byte[] left = after.disk(null);
      assertArrayEquals(first(disk, kept), first(left, kept), () -> "the disk, after " + action);
      if (written) {
        byte[] last = Arrays.copyOfRange(left, DISK - CLUSTER, DISK);
        assertArrayEquals(Pattern.fill(4, CLUSTER), last, "what was written");
      }
      assertArrayEquals(
          snapshot, after.snapshotDisk(0, null), () -> "the snapshot, after " + action);
      assertEquals(1, after.snapshotCount());
    }
  }

  /**
   * The counts of the bitmaps' clusters are looked up when the image is opened: where that can't be
   * done the bitmaps are left alone, and so is the file until somebody changes the disk.
   */
  @ParameterizedTest
  @ValueSource(longs = {CLUSTER + 512, 1L << 40, -512})
  void damagedRefcountTableHarmsNothingBeforeTheFirstChange(long entry) throws IOException {
    Victim victim = new Victim();
    MemoryStorage file = victim.file;
    byte[] disk = new RawQcow2(file).disk(null);
    victim.set(victim.longAt(REFCOUNT_TABLE_OFFSET_AT), entry);
    byte[] before = file.bytes(0, (int) file.length());
    try (DiskImage image = open(file)) {
      assertEquals(List.of(), image.bitmaps().list());
      ByteBuffer read = ByteBuffer.allocate(DISK);
      image.read(0, read);
      assertArrayEquals(disk, read.array());
      image.flush();
    }
    assertArrayEquals(before, file.bytes(0, (int) file.length()));
    DiskImage image = open(file);
    for (Action action : List.of(Action.WRITE, Action.GROW, Action.WRITE)) {
      IOException refused = assertThrows(IOException.class, () -> act(image, action));
      assertTrue(
          String.valueOf(refused.getMessage()).contains("refcount table entry 0"),
          refused::toString);
    }
    assertThrows(IOException.class, image::close);
    before[INCOMPATIBLE_AT + 7] |= 2; // the corrupt bit, and nothing else
    assertArrayEquals(before, file.bytes(0, (int) file.length()));
  }

  private static byte[] first(byte[] disk, int bytes) {
    return Arrays.copyOf(disk, bytes);
  }

  private static void act(DiskImage image, Action action) throws IOException {
    switch (action) {
      case WRITE -> image.write(DISK - CLUSTER, ByteBuffer.wrap(Pattern.fill(4, CLUSTER)));
      case REMOVE -> image.bitmaps().remove("hostile");
      case CLEAR -> image.bitmaps().clear("hostile");
      case DISABLE -> {
        image.write(DISK - CLUSTER, ByteBuffer.wrap(Pattern.fill(4, CLUSTER)));
        image.bitmaps().disable("hostile");
      }
      case MERGE -> image.bitmaps().merge("hostile", "other");
      case REPLACE -> image.bitmaps().replace("hostile", "new", 0);
      case GROW -> image.resize(DISK + (8 << 20));
      case SHRINK -> ((Qcow2Image) image).shrink(DISK / 4);
    }
  }
}
