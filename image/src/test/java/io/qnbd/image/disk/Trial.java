package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.CheckReport;
import io.qnbd.image.ClusterKind;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageReport;
import io.qnbd.image.LayoutSink;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RepairReport;
import io.qnbd.image.RepairScope;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.check.Checker;
import io.qnbd.image.check.Inspector;
import io.qnbd.image.check.LayoutWalk;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.check.Repair;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One damaged image, from the first look to the last: each call ends with what was asked for or
 * with a sentence; what could be read, and stands on firm ground, still reads the same; what was
 * sound still is. Not thread-safe.
 */
final class Trial {
  private static final int REPAIRED_PERCENT = 15;
  private static final int REVERTED_PERCENT = 10;

  /** Only the beginning of a disk is looked at that damage has made a long one. */
  private static final int UNITS_MAX = 1 << 8;

  private final SeededRandom random;
  private final byte[] base;
  private final MemoryStorage data;
  private final MemoryStorage mutant;
  private final OpenOptions options;

  /** Units of 512 bytes that a request was about. */
  private final BitSet touched = new BitSet();

  /**
   * A trial of the image.
   *
   * @param data its external data file, if it has one
   * @param base what a backing file, if the image names one, reads as
   */
  Trial(SeededRandom random, MemoryStorage mutant, MemoryStorage data, byte[] base) {
    this.random = random;
    this.data = data;
    this.base = base;
    this.mutant = mutant;
    this.options =
        OpenOptions.DEFAULT
            .withRefReserve(random.pick(List.of(0, 3, 1024)))
            .withRefBatch(random.pick(List.of(0, 3, 1022)))
            .withOverlapCheck(
                random.chance(10)
                    ? random.pick(List.of(OverlapCheck.values()))
                    : OverlapCheck.CACHED);
  }

  void run() throws IOException {
    inspect();
    CheckReport before = check(mutant);
    List<byte[]> readable = read(mutant, null);
    if (readable.isEmpty()) {
      return;
    }
    BitSet firm = firm(readable.size());
    if (random.chance(REPAIRED_PERCENT)) {
      repair(readable);
    }
    if (random.chance(REVERTED_PERCENT)) {
      revert(before != null && before.corruptions() == 0);
    }
    List<byte[]> snapshot = readSnapshot();
    boolean deleted = use();
    CheckReport after = check(mutant);
    boolean sound = before != null && before.corruptions() == 0;
    if (sound) {
      assertTrue(after != null, "a sound image can't be checked any more");
      assertEquals(0, after.corruptions(), () -> "a sound image has " + after.findings());
    }
    if (options.overlapCheck().compareTo(OverlapCheck.CACHED) < 0 && !sound) {
      return; // asked for
    }
    assertKept(readable, read(mutant, null), sound ? all(readable.size()) : firm);
    if (sound && !deleted) {
      assertKept(snapshot, readSnapshot(), all(snapshot.size()));
    }
  }

  private void inspect() {
    try {
      ImageReport report = Inspector.inspect(Path.of("mutant"), mutant, null, 0);
      assertTrue(report.virtualBytes() >= 0);
    } catch (IOException e) {
      assertSentence(e);
    }
  }

  /** What can be read is read the same after a repair, whatever it mended. */
  private void repair(List<byte[]> readable) {
    MemoryStorage copy = mutant.copy();
    RepairScope scope = random.pick(List.of(RepairScope.values()));
    try {
      RepairReport report = Repair.repair(copy, scope, ProgressListener.NONE);
      CheckReport after = check(copy);
      assertTrue(after != null, "a repaired image can't be checked any more");
      assertEquals(report.after().corruptions(), after.corruptions());
    } catch (IOException e) {
      assertSentence(e);
    }
    assertKept(readable, read(copy, null), all(readable.size()));
  }

  /** As {@link ImageFiles#applySnapshot} does it: the disk is what the snapshot was. */
  private void revert(boolean sound) {
    String name = firstSnapshot();
    if (name == null) {
      return;
    }
    MemoryStorage copy = mutant.copy();
    List<byte[]> said = read(copy, name);
    try {
      try (DiskImage image = Specimen.open(copy, data, base, options)) {
        List<String> _ = ((Qcow2Image) image).revertTo(name);
      }
      Rebuild.rebuild(copy, ProgressListener.NONE);
    } catch (IOException e) {
      assertSentence(e);
      return;
    }
    CheckReport after = check(copy);
    if (sound) {
      assertTrue(after != null && after.corruptions() == 0, "a sound image, after a revert");
      assertKept(said, read(copy, null), all(said.size()));
    }
  }

  private static void assertSentence(IOException e) {
    String message = e.getMessage();
    assertTrue(message != null && message.length() > 10, () -> "no sentence: " + e);
  }

  private @Nullable CheckReport check(MemoryStorage file) {
    try {
      LayoutWalk.tell(file, ProgressListener.NONE, new Unheard());
    } catch (IOException e) {
      assertSentence(e);
    }
    try {
      return Checker.check(file);
    } catch (IOException e) {
      assertSentence(e);
      return null;
    }
  }

  private record Unheard() implements LayoutSink {
    @Override
    public void begin(long clusters, int clusterBytes) {}

    @Override
    public void clusters(long count, ClusterKind kind) {}
  }

  private BitSet firm(int units) throws IOException {
    Footing footing = new Footing(mutant);
    int shift = Integer.numberOfTrailingZeros(clusterBytes()) - 9;
    BitSet firm = new BitSet();
    for (int cluster = 0; cluster << shift < units; cluster++) {
      firm.set(cluster << shift, (cluster + 1) << shift, footing.firm(cluster));
    }
    return firm;
  }

  private int clusterBytes() {
    return 1 << ByteBuffer.wrap(mutant.bytes(20, 4)).getInt();
  }

  private static BitSet all(int units) {
    BitSet all = new BitSet();
    all.set(0, units);
    return all;
  }

  /** Each 512 bytes of the disk, empty where they can't be read; nothing if it can't be opened. */
  private List<byte[]> read(MemoryStorage file, @Nullable String snapshot) {
    List<byte[]> units = new ArrayList<>();
    OpenOptions reading = options.withReadOnly(true).withSnapshot(snapshot);
    try (DiskImage image = Specimen.open(file, data, base, reading)) {
      long bytes = Math.min(image.virtualBytes(), 512L * UNITS_MAX);
      for (long at = 0; at < bytes; at += 4096) {
        readUnits(image, at, (int) Math.min(4096, bytes - at), units);
      }
      walk(image);
    } catch (IOException e) {
      assertSentence(e);
    }
    return units;
  }

  private static void readUnits(DiskImage image, long at, int bytes, List<byte[]> units) {
    ByteBuffer page = ByteBuffer.allocate(bytes);
    boolean whole = true;
    try {
      image.read(at, page);
    } catch (IOException e) {
      assertSentence(e);
      whole = false;
    }
    for (int i = 0; i < bytes; i += 512) {
      int count = Math.min(512, bytes - i);
      ByteBuffer unit = ByteBuffer.allocate(count);
      if (whole) {
        unit.put(page.array(), i, count);
      } else {
        try {
          image.read(at + i, unit);
        } catch (IOException _) {
          unit = ByteBuffer.allocate(0);
        }
      }
      units.add(unit.array());
    }
  }

  private static void walk(DiskImage image) {
    try {
      image.extents(0, image.virtualBytes(), (_, _) -> true);
    } catch (IOException e) {
      assertSentence(e);
    }
    try {
      image.map(0, image.virtualBytes(), (_, _) -> true);
    } catch (IOException e) {
      assertSentence(e);
    }
    try {
      for (BitmapInfo bitmap : image.bitmaps().list()) {
        image.dirtyExtents(bitmap.name(), 0, image.virtualBytes(), (_, _) -> true);
      }
    } catch (IOException e) {
      assertSentence(e);
    }
  }

  private List<byte[]> readSnapshot() {
    String name = firstSnapshot();
    return name == null ? List.of() : read(mutant, name);
  }

  private @Nullable String firstSnapshot() {
    try {
      ImageReport report = Inspector.inspect(Path.of("mutant"), mutant, null, 0);
      ImageReport.Qcow2Details details = report.qcow2();
      if (details != null && !details.snapshots().isEmpty()) {
        return details.snapshots().getFirst().name();
      }
    } catch (IOException e) {
      assertSentence(e);
    }
    return null;
  }

  /** Lets a guest and an operator loose; returns whether snapshots were changed. */
  private boolean use() {
    boolean deleted = false;
    try (DiskImage image = Specimen.open(mutant, data, base, options)) {
      int requests = random.between(1, 12);
      for (int i = 0; i < requests; i++) {
        try {
          deleted |= request(image);
        } catch (IOException e) {
          assertSentence(e);
        }
      }
    } catch (IOException e) {
      assertSentence(e);
    }
    return deleted;
  }

  private boolean request(DiskImage image) throws IOException {
    long disk = Math.min(image.virtualBytes(), 512L * UNITS_MAX);
    if (disk == 0) {
      return false;
    }
    int bytes = (int) Math.min(disk, random.skewed(1, 20_000));
    long at = random.below(disk - bytes + 1);
    int kind = random.below(100);
    if (kind < 80) {
      touched.set((int) (at / 512), (int) ((at + bytes + 511) / 512));
    }
    if (kind < 45) {
      ByteBuffer bytesToWrite = ByteBuffer.wrap(Pattern.fill(random.nextLong(), bytes));
      if (!random.chance(50) || !image.tryWrite(at, bytesToWrite)) {
        image.write(at, bytesToWrite);
      }
    } else if (kind < 60) {
      image.writeZeroes(at, bytes, random.pick(List.of(ZeroMode.values())));
    } else if (kind < 80) {
      image.trim(at, bytes);
    } else {
      return seldom(image, kind, at);
    }
    return false;
  }

  private boolean seldom(DiskImage image, int kind, long at) throws IOException {
    if (kind < 84) {
      image.flush();
    } else if (kind < 87) {
      writeCompressed(image, at);
    } else if (kind < 89) {
      image.compact(ProgressListener.NONE);
    } else if (kind < 91) {
      image.snapshots().create("new " + random.nextLong());
    } else if (kind < 93) {
      image.resize(image.virtualBytes() + 512L * random.below(4096));
    } else if (kind < 95 && !image.snapshots().list().isEmpty()) {
      String first = image.snapshots().list().getFirst().name();
      image.snapshots().delete(first);
      return true;
    } else if (kind < 96) {
      lose(image);
    } else if (kind < 98) {
      changeBitmaps(image.bitmaps());
    } else if (image.tryRead(at, ByteBuffer.allocate(1)) == DiskImage.Attempt.WOULD_BLOCK) {
      image.read(at, ByteBuffer.allocate(1));
    }
    return false;
  }

  private void changeBitmaps(Bitmaps bitmaps) throws IOException {
    List<BitmapInfo> all = bitmaps.list();
    if (all.isEmpty() || random.chance(20)) {
      bitmaps.add("new " + random.nextLong(), 512L << random.below(8), random.chance(50));
      return;
    }
    String name = random.pick(all).name();
    switch (random.below(6)) {
      case 0 -> bitmaps.remove(name);
      case 1 -> bitmaps.clear(name);
      case 2 -> bitmaps.disable(name);
      case 3 -> bitmaps.enable(name);
      case 4 -> bitmaps.merge(name, random.pick(all).name());
      default -> bitmaps.replace(name, "newer " + random.nextLong(), 512);
    }
  }

  private void writeCompressed(DiskImage image, long at) throws IOException {
    long start = at & -clusterBytes();
    int bytes = (int) Math.min(clusterBytes(), image.virtualBytes() - start);
    touched.set((int) (start / 512), (int) ((start + bytes + 511) / 512));
    image.writeCompressed(start, ByteBuffer.wrap(new byte[bytes]).put(0, (byte) 1));
  }

  /** What resize and commit do to an image at rest: the end of the disk, or all of it, is gone. */
  private void lose(DiskImage image) throws IOException {
    Qcow2Image qcow2 = (Qcow2Image) image;
    if (random.chance(30)) {
      touched.set(0, UNITS_MAX);
      qcow2.empty(ProgressListener.NONE);
    } else {
      long bytes = random.below(image.virtualBytes() / 512 + 1) * 512;
      touched.set((int) Math.min(UNITS_MAX, bytes / 512), UNITS_MAX);
      qcow2.shrink(bytes);
    }
  }

  private void assertKept(List<byte[]> before, List<byte[]> after, BitSet which) {
    for (int i = 0; i < before.size(); i++) {
      if (which.get(i) && !touched.get(i) && before.get(i).length > 0) {
        assertTrue(after.size() > i, "the image can't be read any more");
        if (!Arrays.equals(before.get(i), after.get(i))) {
          assertArrayEquals(
              before.get(i), after.get(i), "guest offset 0x" + Integer.toHexString(512 * i));
        }
      }
    }
  }
}
