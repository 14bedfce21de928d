package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.check.Checker;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.BitmapMaker;
import io.qnbd.image.oracle.BitmapMaker.Bitmap;
import io.qnbd.image.oracle.BitmapMaker.Places;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.stream.Stream;
import java.util.zip.GZIPInputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Reading the persistent bitmaps of images that are made byte by byte. */
final class DirtyBitmapsTest {
  private static final int KIB = 1 << 10;
  private static final int MIB = 1 << 20;
  private static final int AUTOCLEAR_AT = 88;

  private record Piece(long bytes, boolean dirty) {}

  private static DiskImage open(MemoryStorage file, OpenOptions options) throws IOException {
    return Qcow2Image.open(
        file.copy(),
        options,
        (name, _) -> {
          throw new AssertionError("no backing file was named, but " + name);
        });
  }

  private static DiskImage openForReading(MemoryStorage file) throws IOException {
    return open(file, OpenOptions.DEFAULT.withReadOnly(true));
  }

  private static List<Piece> pieces(DiskImage image, String name, long offset, long bytes)
      throws IOException {
    List<Piece> pieces = new ArrayList<>();
    image.dirtyExtents(
        name,
        offset,
        bytes,
        (length, dirty) -> {
          pieces.add(new Piece(length, dirty));
          return true;
        });
    return pieces;
  }

  /** Runs of random lengths: some bits alone, some clusters of bits all the same. */
  private static BitSet randomBits(SeededRandom random, int count) {
    BitSet bits = new BitSet();
    boolean dirty = random.chance(50);
    for (int at = 0; at < count; dirty = !dirty) {
      int end = (int) Math.min(count, at + random.skewed(1, count));
      bits.set(at, end, dirty);
      at = end;
    }
    return bits;
  }

  static Stream<Arguments> shapes() {
    return Stream.of(
        Arguments.of(512, 9, 5 * MIB + 512),
        Arguments.of(512, 12, 3 * MIB),
        Arguments.of(512, 31, MIB),
        Arguments.of(4096, 9, 40 * MIB),
        Arguments.of(4096, 16, 20 * MIB + 100 * KIB),
        Arguments.of(65536, 9, 300 * MIB + 1536),
        Arguments.of(65536, 16, 300 * MIB));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void tellsWhatTheBitsSay(int clusterBytes, int granularityBits, int diskBytes) {
    String name = "DirtyBitmapsTest " + clusterBytes + " " + granularityBits;
    Seeds.run(
        name,
        Seeds.count("qnbd.bitmaps", 6),
        seed -> compare(clusterBytes, granularityBits, diskBytes, seed));
  }

  private static void compare(int clusterBytes, int granularityBits, int diskBytes, long seed)
      throws IOException {
    SeededRandom random = new SeededRandom(seed);
    int count = (int) Math.ceilDiv((long) diskBytes, 1L << granularityBits);
    List<BitSet> bits = List.of(randomBits(random, count), randomBits(random, count));
    MemoryStorage file = ImageMaker.empty(3, clusterBytes, 16, diskBytes, 4, null, null);
    BitmapMaker.add(
        file,
        List.of(
            new Bitmap("first", granularityBits, bits.get(0)),
            new Bitmap("second", granularityBits, 0, new byte[0], bits.get(1))));
    assertTrue(Checker.check(file).clean());
    long granularity = 1L << granularityBits;
    try (DiskImage image = openForReading(file)) {
      assertEquals(
          List.of(
              new BitmapInfo("first", granularity, true, true),
              new BitmapInfo("second", granularity, false, true)),
          image.consistentBitmaps());
      for (int i = 0; i < 20; i++) {
        int which = random.below(2);
        long offset = i < 2 ? 0 : random.below((long) diskBytes);
        long bytes = i < 2 ? diskBytes : random.skewed(0, diskBytes - offset);
        assertEquals(
            expected(bits.get(which), granularityBits, offset, bytes),
            pieces(image, image.consistentBitmaps().get(which).name(), offset, bytes));
      }
    }
  }

  /** Bit by bit. */
  private static List<Piece> expected(BitSet bits, int granularityBits, long offset, long bytes) {
    List<Piece> pieces = new ArrayList<>();
    long end = offset + bytes;
    for (long at = offset; at < end; ) {
      long bit = at >> granularityBits;
      long next = Math.min(end, (bit + 1) << granularityBits);
      boolean dirty = bits.get((int) bit);
      if (!pieces.isEmpty() && pieces.getLast().dirty() == dirty) {
        pieces.add(new Piece(pieces.removeLast().bytes() + next - at, dirty));
      } else {
        pieces.add(new Piece(next - at, dirty));
      }
      at = next;
    }
    return pieces;
  }

  @Test
  void stopsWhenTheSinkSaysSo() throws IOException {
    BitSet bits = new BitSet();
    for (int bit = 0; bit < 256; bit += 2) {
      bits.set(bit);
    }
    MemoryStorage file = withBitmap(new Bitmap("b", 12, bits));
    try (DiskImage image = openForReading(file)) {
      List<Piece> pieces = new ArrayList<>();
      image.dirtyExtents(
          "b",
          100,
          MIB - 100,
          (length, dirty) -> {
            pieces.add(new Piece(length, dirty));
            return pieces.size() < 3;
          });
      assertEquals(
          List.of(new Piece(3996, true), new Piece(4096, false), new Piece(4096, true)), pieces);
    }
  }

  /** What QEMU wrote: the first three of 4096 bytes each. */
  @Test
  void readsABitmapThatQemuMade() throws IOException {
    MemoryStorage file;
    try (InputStream zipped = Checker.class.getResourceAsStream("v3-bitmaps.qcow2.gz")) {
      if (zipped == null) {
        throw new IOException("the sample is not there");
      }
      file = MemoryStorage.of(new GZIPInputStream(zipped).readAllBytes());
    }
    OpenOptions reading = OpenOptions.DEFAULT.withReadOnly(true);
    try (DiskImage image =
        Qcow2Image.open(file, reading, (_, _) -> new BytesImage(new byte[MIB]))) {
      assertEquals(List.of(new BitmapInfo("bm", 4096, true, true)), image.consistentBitmaps());
      assertEquals(
          List.of(new Piece(12288, true), new Piece(MIB - 12288, false)),
          pieces(image, "bm", 0, MIB));
    }
  }

  private static final int EXTRA_OK = BitmapMaker.EXTRA_DATA_COMPATIBLE;

  @Test
  void offersOnlyWhatCanBeBelieved() throws IOException {
    BitSet bits = new BitSet();
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, MIB, 1, null, null);
    BitmapMaker.add(
        file,
        List.of(
            new Bitmap("unfinished", 16, BitmapMaker.IN_USE, new byte[0], bits),
            new Bitmap("known", 16, 0, new byte[0], bits),
            new Bitmap("strange", 16, 0, new byte[5], bits),
            new Bitmap("strange but harmless", 16, EXTRA_OK, new byte[9], bits),
            new Bitmap("ä".repeat(511), 16, BitmapMaker.AUTO, new byte[0], bits)));
    try (DiskImage image = openForReading(file)) {
      assertEquals(
          List.of("known", "strange but harmless", "ä".repeat(511)),
          image.consistentBitmaps().stream().map(BitmapInfo::name).toList());
      assertThrows(UnsupportedImageException.class, () -> pieces(image, "unfinished", 0, MIB));
      assertThrows(IndexOutOfBoundsException.class, () -> pieces(image, "known", 512, MIB));
    }
  }

  private static MemoryStorage withBitmap(Bitmap bitmap) throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, MIB, 1, null, null);
    BitmapMaker.add(file, List.of(bitmap));
    return file;
  }

  /** A change to an image with two bitmaps, "b" and "c", 64 KiB a bit. */
  interface Damage {
    void apply(MemoryStorage file, Places places) throws IOException;
  }

  private static Arguments damage(String what, Damage damage) {
    return Arguments.of(what, damage);
  }

  private static Damage longAt(String part, int at, long value) {
    return (file, places) -> file.write(at(places, part) + at, longOf(value));
  }

  private static Damage intAt(String part, int at, int value) {
    return (file, places) ->
        file.write(at(places, part) + at, ByteBuffer.allocate(4).putInt(0, value));
  }

  private static Damage byteAt(String part, int at, int value) {
    return (file, places) ->
        file.write(at(places, part) + at, ByteBuffer.allocate(1).put(0, (byte) value));
  }

  private static ByteBuffer longOf(long value) {
    return ByteBuffer.allocate(8).putLong(0, value);
  }

  private static long at(Places places, String part) {
    return switch (part) {
      case "extension" -> places.extension();
      case "first" -> places.directory();
      case "second" -> places.directory() + 32;
      default -> throw new AssertionError(part);
    };
  }

  static Stream<Arguments> damages() {
    return Stream.of(
        damage("an extension too short", intAt("extension", -4, 16)),
        damage("an extension without bitmaps", intAt("extension", 0, 0)),
        damage("more bitmaps than there are", intAt("extension", 0, 3)),
        damage("fewer bitmaps than there are", intAt("extension", 0, 1)),
        damage("more than 65535 bitmaps", intAt("extension", 0, 65536)),
        damage("two billion bitmaps and more", intAt("extension", 0, -1)),
        damage("the reserved field", intAt("extension", 4, 1)),
        damage("an empty directory", longAt("extension", 8, 0)),
        damage("a directory too long for its entries", longAt("extension", 8, 72)),
        damage("a directory too short", longAt("extension", 8, 63)),
        damage("a directory over 64 MiB", longAt("extension", 8, (64 << 20) + 1)),
        damage("a negative directory", longAt("extension", 8, -1)),
        damage("a directory in the header", longAt("extension", 16, 0)),
        damage("a directory out of line", longAt("extension", 16, 512)),
        damage("a directory past the end", longAt("extension", 16, 1L << 40)),
        damage("a directory before the start", longAt("extension", 16, -4096)),
        damage("a table in the header", longAt("first", 0, 0)),
        damage("a table out of line", longAt("second", 0, 4096 + 512)),
        damage("a table past the end", longAt("second", 0, 1L << 50)),
        damage("a table before the start", longAt("first", 0, Long.MIN_VALUE)),
        damage("a table too long", intAt("first", 8, 2)),
        damage("a table too short", intAt("first", 8, 0)),
        damage("a table of 4 billion", intAt("second", 8, -1)),
        damage("reserved flags", intAt("first", 12, 8)),
        damage("type 0", byteAt("first", 16, 0)),
        damage("type 2", byteAt("second", 16, 2)),
        damage("granularity 8", byteAt("first", 17, 8)),
        damage("granularity 32", byteAt("first", 17, 32)),
        damage("granularity 255", byteAt("second", 17, 255)),
        damage("no name", intAt("first", 16, 0x01100000)),
        damage("a name of 1024 bytes", intAt("first", 16, 0x01100400)),
        damage("a name past the end", intAt("second", 16, 0x0110ffff)),
        damage("extra data past the end", intAt("second", 20, 4096)),
        damage("extra data of 4 GiB", intAt("first", 20, -1)),
        damage("a name with a zero", byteAt("second", 24, 0)),
        damage("two of one name", byteAt("second", 24, 'b')));
  }

  @ParameterizedTest
  @MethodSource("damages")
  void aDamagedDirectoryHidesTheBitmapsAndNotTheDisk(String what, Damage damage)
      throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, MIB, 1, null, null);
    BitSet bits = new BitSet();
    bits.set(3);
    Places places =
        BitmapMaker.add(file, List.of(new Bitmap("b", 16, bits), new Bitmap("c", 16, bits)));
    try (DiskImage image = openForReading(file)) {
      assertEquals(2, image.consistentBitmaps().size());
    }
    damage.apply(file, places);
    try (DiskImage image = openForReading(file)) {
      assertEquals(List.of(), image.consistentBitmaps(), what);
      image.read(0, ByteBuffer.allocate(MIB));
      assertThrows(UnsupportedImageException.class, () -> pieces(image, "b", 0, MIB));
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {2, 1L << 56, 1L << 63, 4096 + 512, 4097, 1L << 50})
  void aDamagedTableIsFoundWhenItIsWalked(long entry) throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, MIB, 1, null, null);
    Places places = BitmapMaker.add(file, List.of(new Bitmap("b", 16, new BitSet())));
    file.write(places.tables().getFirst(), longOf(entry));
    try (DiskImage image = openForReading(file)) {
      assertEquals(1, image.consistentBitmaps().size());
      CorruptImageException e =
          assertThrows(CorruptImageException.class, () -> pieces(image, "b", 0, MIB));
      assertTrue(String.valueOf(e.getMessage()).contains("entry 0 of the table of bitmap b"));
    }
  }

  @Test
  void namesHaveUpTo1023Bytes() throws IOException {
    for (int bytes : new int[] {1, 1023, 1024}) {
      MemoryStorage file = withBitmap(new Bitmap("x".repeat(bytes), 16, new BitSet()));
      try (DiskImage image = openForReading(file)) {
        assertEquals(bytes == 1024 ? 0 : 1, image.consistentBitmaps().size(), bytes + " bytes");
      }
    }
  }

  @Test
  void withoutTheAutoclearBitNoneIsBelieved() throws IOException {
    MemoryStorage file = withBitmap(new Bitmap("b", 16, new BitSet()));
    file.write(AUTOCLEAR_AT, longOf(2));
    try (DiskImage image = openForReading(file)) {
      assertEquals(List.of(), image.consistentBitmaps());
    }
  }

  /** Whatever the bytes are: an answer or an exception that says what is wrong, and soon. */
  @Test
  void noDamageDoesMoreThanHideABitmap() {
    Seeds.run(
        "DirtyBitmapsTest damage", Seeds.count("qnbd.bitmapDamages", 300), seed -> flip(seed));
  }

  private static void flip(long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    MemoryStorage file = ImageMaker.empty(3, 512, 16, 4 * MIB, 4, null, null);
    Places places =
        BitmapMaker.add(
            file,
            List.of(
                new Bitmap("b", 9, randomBits(random, 8192)),
                new Bitmap("c", 12, randomBits(random, 1024))));
    for (int flips = random.between(1, 4); flips > 0; flips--) {
      long part =
          random.pick(
              List.of(
                  (long) places.extension(),
                  places.directory(),
                  places.directory() + 32,
                  places.tables().get(0),
                  places.tables().get(1)));
      long at = part + random.below(24);
      byte[] old = file.bytes(at, 1);
      byte flipped = (byte) (old[0] ^ 1 << random.below(8));
      assertNotEquals(old[0], flipped);
      file.write(at, ByteBuffer.wrap(new byte[] {flipped}));
    }
    try (DiskImage image = openForReading(file)) {
      for (BitmapInfo bitmap : image.consistentBitmaps()) {
        long sum = 0;
        try {
          for (Piece piece : pieces(image, bitmap.name(), 0, image.virtualBytes())) {
            sum += piece.bytes();
          }
          assertEquals(image.virtualBytes(), sum);
        } catch (CorruptImageException e) {
          assertTrue(e.getMessage() != null && e.getMessage().startsWith(file.name()));
        }
      }
    }
  }
}
