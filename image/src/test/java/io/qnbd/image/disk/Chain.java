package io.qnbd.image.disk;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.SnapshotMaker;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.raw.RawImage;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A chain of backing files, each of its own size and clusters, the last one maybe raw; and what
 * their tables, read by other code than the engine's, say of each sector. Not thread-safe.
 */
final class Chain {
  static final int SECTOR = GuestModel.SECTOR_BYTES;
  private static final int SECTORS_MAX = 3000;

  /** One file of the chain, and what the tables below and its own say of its sectors. */
  private record Layer(MemoryStorage file, ImageFormat format, List<ExtentState> sectors) {}

  private final SeededRandom random;
  private final List<Layer> layers = new ArrayList<>();
  private byte[] disk = new byte[0];

  /** A chain of so many files, which were all written to. */
  Chain(SeededRandom random, int length, boolean rawBelow) throws IOException {
    this.random = random;
    if (rawBelow) {
      addRaw();
    }
    while (layers.size() < length) {
      addQcow2();
    }
  }

  private Layer top() {
    return layers.getLast();
  }

  /** What the topmost disk reads as. */
  byte[] disk() {
    return disk;
  }

  /** What each of its sectors is made of. */
  List<ExtentState> sectors() {
    return top().sectors();
  }

  MemoryStorage file() {
    return top().file();
  }

  DiskImage open(boolean readOnly) throws IOException {
    return open(layers.size() - 1, options().withReadOnly(readOnly));
  }

  /** Opens the topmost disk as an internal snapshot keeps it. */
  DiskImage openSnapshot(String name) throws IOException {
    return open(layers.size() - 1, options().withReadOnly(true).withSnapshot(name));
  }

  private static OpenOptions options() {
    return OpenOptions.DEFAULT
        .withFormat(ImageFormat.QCOW2)
        .withBackingPolicy(BackingPolicy.ANY)
        .withL2CacheBytes(1 << 16);
  }

  private DiskImage open(int index, OpenOptions options) throws IOException {
    MemoryStorage file = layers.get(index).file();
    return layers.get(index).format() == ImageFormat.RAW
        ? RawImage.open(file, true)
        : Qcow2Image.open(file, options, (_, _) -> open(index - 1, options().withReadOnly(true)));
  }

  /** Whole sectors, of which no byte of those with data is zero. */
  private void addRaw() {
    disk = new byte[SECTOR * random.between(1, SECTORS_MAX)];
    List<ExtentState> sectors = new ArrayList<>();
    while (sectors.size() * SECTOR < disk.length) {
      boolean zero = random.chance(50);
      int left = disk.length / SECTOR - sectors.size();
      for (int count = (int) random.skewed(1, left); count > 0; count--) {
        if (!zero) {
          int at = sectors.size() * SECTOR;
          Arrays.fill(disk, at, at + SECTOR, (byte) (random.nextLong() | 1));
        }
        sectors.add(new ExtentState(zero, zero, 1));
      }
    }
    layers.add(new Layer(MemoryStorage.of(disk.clone()), ImageFormat.RAW, sectors));
  }

  private void addQcow2() throws IOException {
    boolean backed = !layers.isEmpty();
    boolean onRaw = backed && top().format() == ImageFormat.RAW;
    int bytes = SECTOR * random.between(1, SECTORS_MAX);
    int clusterBits = random.between(9, 16);
    int clusterBytes = 1 << clusterBits;
    boolean extendedL2 = clusterBits >= 14 && random.chance(60);
    byte[] below = disk;
    MemoryStorage file =
        ImageMaker.empty(
            extendedL2 || random.chance(70) ? 3 : 2,
            extendedL2,
            clusterBytes,
            16,
            bytes,
            2,
            backed ? "below" : null,
            backed ? onRaw ? "raw" : "qcow2" : null);
    layers.add(new Layer(file, ImageFormat.QCOW2, new ArrayList<>()));
    disk = new RawQcow2(file).disk(backed ? below : null);
    use();
    refresh();
  }

  /** Lets a guest change the topmost disk; what it is made of follows when it is closed. */
  private void use() throws IOException {
    GuestModel model = new GuestModel(disk);
    try (DiskImage image = open(false)) {
      Workload.Mix mix = new Workload.Mix(10, 30, 20, 10, Math.max(512, disk.length / 8));
      new Workload(random, image, model, mix).run(random.between(0, 25));
    }
    disk = model.latest(0, model.bytes());
  }

  /** Keeps the present state as an internal snapshot, then changes the disk. */
  void snapshotAndUse(String name) throws IOException {
    SnapshotMaker.take(file(), name);
    use();
    refresh();
  }

  private void refresh() {
    RawQcow2 tables = new RawQcow2(file());
    setSectors(tables.kinds(), tables.unitBytes());
  }

  private void setSectors(RawQcow2.Kind[] kinds, int unitBytes) {
    List<ExtentState> sectors = top().sectors();
    sectors.clear();
    for (int at = 0; at < disk.length; at += SECTOR) {
      sectors.add(
          switch (kinds[at / unitBytes]) {
            case DATA -> new ExtentState(false, false, 1);
            case ZEROES -> new ExtentState(true, true, 1);
            case ALLOCATED_ZEROES -> new ExtentState(false, true, 1);
            case UNALLOCATED -> below(at / SECTOR);
          });
    }
  }

  private ExtentState below(int sector) {
    if (layers.size() == 1) {
      return new ExtentState(true, true, 0);
    }
    List<ExtentState> sectors = layers.get(layers.size() - 2).sectors();
    if (sector >= sectors.size()) {
      return new ExtentState(true, true, 2);
    }
    ExtentState state = sectors.get(sector);
    return new ExtentState(state.hole(), state.zero(), state.depth() == 0 ? 0 : state.depth() + 1);
  }
}
