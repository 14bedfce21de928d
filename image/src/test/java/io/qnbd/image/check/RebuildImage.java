package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.disk.Qcow2Image;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.SnapshotMaker;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** An image whose refcounts and flags get damaged, and what it must hold all the time. */
final class RebuildImage {
  /** A row of the matrix. */
  record Shape(
      int version,
      int clusterBytes,
      int refcountBits,
      int diskBytes,
      boolean compressed,
      int snapshots) {}

  private static final OpenOptions OPTIONS = OpenOptions.DEFAULT.withFormat(ImageFormat.QCOW2);

  private final byte[] disk;
  private final List<byte[]> snapshots = new ArrayList<>();
  private final byte[] contents;
  private final ByteBuffer bytes;

  /** Takes the image as it is for what it must hold. */
  RebuildImage(MemoryStorage file) {
    RawQcow2 image = new RawQcow2(file);
    disk = image.disk(null);
    for (int index = 0; index < image.snapshotCount(); index++) {
      snapshots.add(image.snapshotDisk(index, null));
    }
    contents = file.bytes(0, (int) file.length());
    bytes = ByteBuffer.wrap(contents);
  }

  private RebuildImage(byte[] contents) {
    this.disk = new byte[0];
    this.contents = contents;
    this.bytes = ByteBuffer.wrap(contents);
  }

  /** The image's bytes alone: it may be too damaged to be read. */
  static RebuildImage unread(MemoryStorage file) {
    return new RebuildImage(file.bytes(0, (int) file.length()));
  }

  int refcountTableEntries() {
    return bytes.getInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT) * clusterBytes() / Long.BYTES;
  }

  /** An image that was written to, with snapshots taken on the way. */
  static RebuildImage make(Shape shape, SeededRandom random) throws IOException {
    long clusters = 4L * shape.diskBytes() / shape.clusterBytes() + 64;
    long tableEntries = clusters * shape.refcountBits() / 8 / shape.clusterBytes() + 1;
    MemoryStorage file =
        ImageMaker.empty(
            shape.version(),
            shape.clusterBytes(),
            shape.refcountBits(),
            shape.diskBytes(),
            (int) (tableEntries * 8 / shape.clusterBytes() + 1),
            null,
            null);
    if (shape.compressed()) {
      byte[] packed = new byte[shape.diskBytes()];
      for (int at = 0; at < packed.length; at += 512) {
        Arrays.fill(packed, at, Math.min(packed.length, at + 200), (byte) random.below(256));
      }
      ImageMaker.compress(file, packed);
    }
    for (int session = 0; session <= shape.snapshots(); session++) {
      use(file, random);
      if (session < shape.snapshots()) {
        SnapshotMaker.take(file, "snapshot " + session);
      }
    }
    return new RebuildImage(file);
  }

  private static void use(MemoryStorage file, SeededRandom random) throws IOException {
    try (DiskImage image =
        Qcow2Image.open(
            file,
            OPTIONS,
            (name, _) -> {
              throw new AssertionError("no backing file was named, but " + name);
            })) {
      for (int step = random.between(1, 12); step > 0; step--) {
        int count = (int) random.skewed(1, image.virtualBytes() / 4);
        long at = random.below(image.virtualBytes() - count + 1);
        if (random.chance(20)) {
          image.writeZeroes(at, count, ZeroMode.MAY_UNMAP);
        } else {
          image.write(at, ByteBuffer.wrap(random.bytes(count)));
        }
      }
    }
  }

  MemoryStorage file() throws IOException {
    return MemoryStorage.of(contents);
  }

  /** The contents, to be changed in place. */
  ByteBuffer bytes() {
    return bytes;
  }

  int clusterBytes() {
    return 1 << bytes.getInt(HeaderLayout.CLUSTER_BITS_AT);
  }

  private int version() {
    return bytes.getInt(HeaderLayout.VERSION_AT);
  }

  private int refcountOrder() {
    return version() == 2 ? 4 : bytes.getInt(HeaderLayout.REFCOUNT_ORDER_AT);
  }

  int refcountsPerBlock() {
    return (clusterBytes() * 8) >>> refcountOrder();
  }

  void setDirty() {
    if (version() >= 3) {
      bytes.putLong(HeaderLayout.INCOMPATIBLE_AT, FeatureBits.DIRTY);
    }
  }

  int tableEntryAt(int index) {
    return (int) bytes.getLong(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT) + index * Long.BYTES;
  }

  /** Indexes of the table's entries that name a block. */
  private List<Integer> blocks() {
    List<Integer> blocks = new ArrayList<>();
    int entries =
        bytes.getInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT) * clusterBytes() / Long.BYTES;
    for (int index = 0; index < entries; index++) {
      if (bytes.getLong(tableEntryAt(index)) != 0) {
        blocks.add(index);
      }
    }
    return blocks;
  }

  long refcount(long cluster) {
    return RefcountEntries.get(
        block(cluster), refcountOrder(), (int) (cluster % refcountsPerBlock()));
  }

  void setRefcount(long cluster, long count) {
    byte[] block = block(cluster);
    RefcountEntries.set(block, refcountOrder(), (int) (cluster % refcountsPerBlock()), count);
    bytes.put(blockAt(cluster), block);
  }

  private byte[] block(long cluster) {
    return Arrays.copyOfRange(contents, blockAt(cluster), blockAt(cluster) + clusterBytes());
  }

  private int blockAt(long cluster) {
    return (int) bytes.getLong(tableEntryAt((int) (cluster / refcountsPerBlock())));
  }

  /** Where the entries of an L1 table stand that name an L2 table. */
  private List<Integer> l1Entries(int at, int entries) {
    List<Integer> places = new ArrayList<>();
    for (int index = 0; index < entries; index++) {
      if (L1Entry.tableOffset(bytes.getLong(at + index * Long.BYTES)) != 0) {
        places.add(at + index * Long.BYTES);
      }
    }
    return places;
  }

  List<Integer> activeL1Entries() {
    return l1Entries(
        (int) bytes.getLong(HeaderLayout.L1_OFFSET_AT), bytes.getInt(HeaderLayout.L1_ENTRIES_AT));
  }

  /** Those of the disk and of all snapshots. */
  private List<Integer> allL1Entries() {
    List<Integer> places = new ArrayList<>(activeL1Entries());
    int at = (int) bytes.getLong(HeaderLayout.SNAPSHOTS_OFFSET_AT);
    for (int index = 0; index < bytes.getInt(HeaderLayout.SNAPSHOT_COUNT_AT); index++) {
      places.addAll(l1Entries((int) bytes.getLong(at), bytes.getInt(at + Long.BYTES)));
      int extra = bytes.getInt(at + 36);
      int names = bytes.getShort(at + 12) + bytes.getShort(at + 14);
      at += (SnapshotEntry.FIXED_BYTES + extra + names + 7) & ~7;
    }
    return places;
  }

  int l2At(int l1EntryAt) {
    return (int) L1Entry.tableOffset(bytes.getLong(l1EntryAt));
  }

  /** Damage of every kind that a rebuild mends. */
  void damage(SeededRandom random) {
    if (random.chance(70)) {
      setDirty();
    }
    for (int times = random.between(1, 8); times > 0; times--) {
      List<Integer> blocks = blocks();
      switch (random.below(7)) {
        case 0 -> setRandom(random, random.nextLong());
        case 1 -> bytes.put(blockOf(random), new byte[clusterBytes()]);
        case 2 -> bytes.put(blockOf(random), random.bytes(clusterBytes()));
        case 3 -> addLittle(random);
        case 4 -> {
          if (blocks.size() > 1) {
            bytes.putLong(tableEntryAt(random.pick(blocks)), 0);
          }
        }
        case 5 -> flip(random, activeL1Entries());
        default -> {
          List<Integer> tables = allL1Entries();
          if (!tables.isEmpty()) {
            flipEntries(random, l2At(random.pick(tables)));
          }
        }
      }
    }
  }

  /** Counts too high and nothing else. */
  void leak(SeededRandom random) {
    for (int times = random.between(1, 50); times > 0; times--) {
      long cluster = clusterOf(random);
      long max = (1L << Math.min(62, 1 << refcountOrder())) - 1;
      long count = refcount(cluster);
      if (Long.compareUnsigned(count, max) < 0) {
        setRefcount(cluster, count + 1 + random.below(max - count));
      }
    }
  }

  private long clusterOf(SeededRandom random) {
    long first = (long) random.pick(blocks()) * refcountsPerBlock();
    return first + random.skewed(0, refcountsPerBlock() - 1);
  }

  private int blockOf(SeededRandom random) {
    return (int) bytes.getLong(tableEntryAt(random.pick(blocks())));
  }

  private void setRandom(SeededRandom random, long count) {
    for (int times = random.between(1, 20); times > 0; times--) {
      setRefcount(clusterOf(random), count);
    }
  }

  private void addLittle(SeededRandom random) {
    for (int times = random.between(1, 20); times > 0; times--) {
      long cluster = clusterOf(random);
      setRefcount(cluster, refcount(cluster) + (random.chance(50) ? 1 : -1));
    }
  }

  private void flip(SeededRandom random, List<Integer> places) {
    for (int place : places) {
      if (random.chance(30)) {
        bytes.putLong(place, bytes.getLong(place) ^ L1Entry.COPIED);
      }
    }
  }

  private void flipEntries(SeededRandom random, int tableAt) {
    int percent = random.pick(List.of(1, 20, 100));
    for (int at = tableAt; at < tableAt + clusterBytes(); at += L2Entry.BYTES) {
      if (random.chance(percent)) {
        bytes.putLong(at, bytes.getLong(at) ^ L2Entry.COPIED);
      }
    }
  }

  /** The disk and its snapshots read as ever. */
  void requireSameContent(MemoryStorage file) {
    RawQcow2 image = new RawQcow2(file);
    GuestModel.assertSame(disk, image.disk(null), "disk");
    assertEquals(snapshots.size(), image.snapshotCount());
    for (int index = 0; index < snapshots.size(); index++) {
      GuestModel.assertSame(
          snapshots.get(index), image.snapshotDisk(index, null), "snapshot " + index);
    }
  }

  /** Both checks find nothing, not even a leak or a dirty bit, and the content is there. */
  void requireRebuilt(MemoryStorage file) throws IOException {
    CheckReport report = Checker.check(file);
    assertEquals(List.of(), report.findings());
    assertEquals(0, report.corruptions() + report.leaks());
    RawQcow2.Findings findings = new RawQcow2(file).check();
    assertEquals(List.of(), findings.corruptions());
    assertEquals(0, findings.leaks(), "leaks");
    requireSameContent(file);
  }
}
