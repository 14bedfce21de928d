package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.oracle.BitmapMaker;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.SnapshotMaker;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.zip.GZIPInputStream;
import org.jspecify.annotations.Nullable;

/**
 * An image of some kind to be mutated, and where its metadata is.
 *
 * @param data the external data file, of an image that has one
 * @param base what a backing file, if one is named, reads as
 * @param places never empty
 */
@SuppressWarnings("ArrayRecordComponent") // never compared
record Specimen(
    String name, MemoryStorage file, MemoryStorage data, byte[] base, List<Place> places) {
  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  /**
   * A piece of metadata.
   *
   * @param weight how often it is hit, in proportion
   * @param unit the size of its fields, in bytes; 1 for a mixture
   */
  record Place(String name, long at, int bytes, int unit, int weight) {}

  @Override
  public String toString() {
    return name;
  }

  /** One of each kind. */
  static List<Specimen> all() throws IOException {
    List<Specimen> all = new ArrayList<>();
    ImageShape small = ImageShape.of(3, 512, 16, 96 << 10);
    ImageShape usual = ImageShape.of(3, 4096, 16, 192 << 10);
    all.add(shaped("512", small));
    all.add(shaped("512-snapshots", small.withSnapshots(2)));
    all.add(shaped("512-compressed", small.with(Preparation.COMPRESSED).withSnapshots(1)));
    all.add(shaped("512-wide", ImageShape.of(3, 512, 64, 64 << 10)));
    all.add(shaped("512-narrow", ImageShape.of(3, 512, 1, 64 << 10)));
    all.add(shaped("v2", ImageShape.of(2, 512, 16, 64 << 10).withSnapshots(1)));
    all.add(shaped("v2-backed", ImageShape.of(2, 4096, 16, 96 << 10).with(Backing.RAW_SHORTER)));
    all.add(shaped("4k", usual));
    all.add(shaped("4k-snapshots", usual.withSnapshots(2)));
    all.add(shaped("4k-compressed", usual.with(Preparation.COMPRESSED)));
    all.add(shaped("4k-backed", usual.with(Backing.RAW_LONGER).withSnapshots(1)));
    all.add(shaped("4k-lazy", usual.withLazyRefcounts()));
    all.add(shaped("4k-narrow", ImageShape.of(3, 4096, 2, 128 << 10).withSnapshots(1)));
    all.add(shaped("4k-zstd", usual.with(Preparation.ZSTD).withSnapshots(1)));
    all.add(shaped("4k-luks", ImageShape.of(3, 4096, 16, 96 << 10).with(ImageShape.Place.LUKS)));
    all.add(shaped("4k-data-file", usual.with(ImageShape.Place.DATA_FILE)));
    all.add(shaped("4k-raw-data-file", usual.with(ImageShape.Place.RAW_DATA_FILE)));
    ImageShape parts = ImageShape.of(3, 16384, 16, 384 << 10).withExtendedL2();
    all.add(shaped("16k-subclusters", parts));
    all.add(shaped("16k-subclusters-snapshots", parts.withSnapshots(2)));
    all.add(shaped("16k-subclusters-backed", parts.with(Backing.RAW_SHORTER)));
    all.add(bitmaps());
    all.add(shaped("64k", ImageShape.of(3, 65536, 16, 1 << 20).withSnapshots(1)));
    for (String sample : List.of("v2-snapshot", "v3-compressed", "v3-bitmaps", "v3-subclusters")) {
      all.add(of(sample, sample(sample), new MemoryStorage(), new byte[0]));
    }
    return all;
  }

  /** The largest clusters there are; slow, so there are few of these. */
  static Specimen large() throws IOException {
    return shaped("2M", ImageShape.of(3, 2 << 20, 16, 8 << 20).withSnapshots(1));
  }

  private static Specimen shaped(String name, ImageShape shape) throws IOException {
    SeededRandom random = new SeededRandom(name.hashCode());
    byte[] contents = new byte[shape.diskBytes()];
    Pattern.scatter(random, contents);
    byte[] base = new byte[shape.backingBytes()];
    Pattern.scatter(random, base);
    MemoryStorage file = shape.make(contents);
    MemoryStorage data = new MemoryStorage();
    write(random, file, data, base, shape);
    for (int i = 0; i < shape.snapshots(); i++) {
      if (shape.extendedL2()) {
        try (DiskImage image = open(file, data, base, shape.options())) {
          image.snapshots().create("snapshot " + i);
        }
      } else {
        SnapshotMaker.take(file, "snapshot " + i);
      }
      write(random, file, data, base, shape);
    }
    return of(name, file, data, base);
  }

  private static void write(
      SeededRandom random, MemoryStorage file, MemoryStorage data, byte[] base, ImageShape shape)
      throws IOException {
    try (DiskImage image = open(file, data, base, shape.options())) {
      for (int i = 0; shape.preparation() == Preparation.ZSTD && i < 12; i++) {
        int cluster = random.below(shape.diskBytes() / shape.clusterBytes());
        byte[] contents = new byte[shape.clusterBytes()];
        Pattern.scatter(random, contents);
        image.writeCompressed((long) cluster * shape.clusterBytes(), ByteBuffer.wrap(contents));
      }
      for (int i = 0; i < 8; i++) {
        int bytes = 512 * random.between(1, Math.max(1, shape.diskBytes() / 512 / 8));
        int at = random.below(shape.diskBytes() - bytes + 1) & -512;
        image.write(at, ByteBuffer.wrap(Pattern.fill(random.nextLong(), bytes)));
      }
      image.trim(shape.diskBytes() / 2, shape.diskBytes() / 8);
    }
  }

  private static Specimen bitmaps() throws IOException {
    Specimen plain = shaped("4k-bitmaps", ImageShape.of(3, 4096, 16, 192 << 10));
    BitSet bits = new BitSet();
    bits.set(3, 40);
    BitmapMaker.add(
        plain.file(),
        List.of(new BitmapMaker.Bitmap("one", 9, bits), new BitmapMaker.Bitmap("two", 16, bits)));
    return of("4k-bitmaps", plain.file(), plain.data(), plain.base());
  }

  private static MemoryStorage sample(String name) throws IOException {
    String path = "/io/qnbd/image/check/" + name + ".qcow2.gz";
    try (InputStream zipped = Specimen.class.getResourceAsStream(path)) {
      if (zipped == null) {
        throw new IOException("there is no sample " + name);
      }
      return MemoryStorage.of(new GZIPInputStream(zipped).readAllBytes());
    }
  }

  /** Opens an image with the backing file and the data file, whatever it calls them. */
  static DiskImage open(MemoryStorage file, MemoryStorage data, byte[] base, OpenOptions options)
      throws IOException {
    return Qcow2Image.open(
        file,
        options
            .withFormat(ImageFormat.QCOW2)
            .withL2CacheBytes(1 << 16)
            .withPassphrase(ImageMaker.PASSPHRASE),
        new BackingOpener() {
          @Override
          public DiskImage open(String name, ImageFormat format) {
            return new BytesImage(base);
          }

          @Override
          public Storage openData(@Nullable String name) {
            return data;
          }
        });
  }

  private static Specimen of(String name, MemoryStorage file, MemoryStorage data, byte[] base) {
    return new Specimen(name, file, data, base, new Survey(file).places());
  }

  /** Finds the metadata of an image that is as it should be. */
  private static final class Survey {
    private final MemoryStorage file;
    private final int clusterBytes;
    private final List<Place> places = new ArrayList<>();

    Survey(MemoryStorage file) {
      this.file = file;
      this.clusterBytes = 1 << number(20, 4);
    }

    private int number(long at, int bytes) {
      ByteBuffer in = ByteBuffer.wrap(file.bytes(at, 8));
      return bytes == 4 ? in.getInt() : in.getShort();
    }

    private long word(long at) {
      return ByteBuffer.wrap(file.bytes(at, 8)).getLong();
    }

    List<Place> places() {
      places.add(new Place("header", 0, 112, 4, 12));
      places.add(new Place("extensions", 104, Math.min(512, clusterBytes) - 104, 4, 6));
      addL1("L1 table", word(40), number(36, 4), 12);
      long table = word(48);
      places.add(new Place("refcount table", table, 64, 8, 8));
      for (int i = 0; i < clusterBytes / 8 && word(table + 8L * i) != 0; i++) {
        int bytes = Math.min(clusterBytes, 256);
        places.add(new Place("refcount block", word(table + 8L * i), bytes, 2, 10));
      }
      long at = word(64);
      for (int i = 0; i < number(60, 4); i++) {
        int bytes = 40 + number(at + 36, 4) + number(at + 12, 2) + number(at + 14, 2);
        places.add(new Place("snapshot", at, bytes, 4, 6));
        addL1("snapshot's L1 table", word(at), number(at + 8, 4), 3);
        at += (bytes + 7) & ~7;
      }
      addBitmaps();
      return List.copyOf(places);
    }

    private void addL1(String name, long at, int entries, int weight) {
      places.add(new Place(name, at, 8 * entries, 8, weight));
      for (int i = 0; i < entries; i++) {
        long table = word(at + 8L * i) & OFFSET_MASK;
        if (table != 0) {
          int bytes = Math.min(clusterBytes, 1024);
          places.add(new Place("L2 table", table, bytes, 8, 2 * weight));
          addCompressed(table, bytes);
        }
      }
    }

    private void addCompressed(long table, int bytes) {
      for (int i = 0; i < bytes; i += 8) {
        long entry = word(table + i);
        if ((entry & RawEntry.COMPRESSED) != 0) {
          int bits = 62 - (Integer.numberOfTrailingZeros(clusterBytes) - 8);
          places.add(new Place("compressed data", entry & ((1L << bits) - 1), 64, 1, 1));
          return;
        }
      }
    }

    private void addBitmaps() {
      int header = number(4, 4) == 3 ? number(100, 4) : 0;
      for (int at = header; at > 0 && at < 4096 - 32 && number(20, 4) >= 12; ) {
        int type = number(at, 4);
        if (type == 0x0537be77) {
          places.add(new Place("LUKS header", word(at + 8), 592, 4, 10));
          places.add(new Place("key material", word(at + 8) + 4096, 256, 1, 2));
        }
        if (type == 0x23852875) {
          places.add(new Place("bitmaps extension", at, 32, 4, 10));
          long directory = word(at + 24);
          places.add(new Place("bitmap directory", directory, (int) word(at + 16), 4, 15));
          places.add(new Place("bitmap table", word(directory), 32, 8, 10));
        }
        if (type == 0) {
          return;
        }
        at += 8 + ((number(at + 4, 4) + 7) & ~7);
      }
    }
  }

  /** What the survey must know of entries. */
  private static final class RawEntry {
    static final long COMPRESSED = 1L << 62;
  }
}
