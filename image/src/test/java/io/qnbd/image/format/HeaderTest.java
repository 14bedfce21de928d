package io.qnbd.image.format;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

final class HeaderTest {
  private static final long FILE_BYTES = 64 << 16;

  private static HeaderBuilder plain(int version, int clusterBits) {
    return new HeaderBuilder(version, clusterBits)
        .virtualBytes(1 << 14)
        .refcountTable(1L << clusterBits, 1)
        .l1(3L << clusterBits, 64);
  }

  private static Header parse(ByteBuffer cluster) throws IOException {
    return Header.parse("disk.qcow2", cluster, FILE_BYTES);
  }

  private static ByteBuffer edited(Header header, Consumer<ByteBuffer> edit) {
    ByteBuffer cluster = header.encode();
    edit.accept(cluster);
    return cluster;
  }

  @Test
  void layoutAddsUp() {
    int[][] atAndBytes = {
      {HeaderLayout.MAGIC_AT, 4},
      {HeaderLayout.VERSION_AT, 4},
      {HeaderLayout.BACKING_OFFSET_AT, 8},
      {HeaderLayout.BACKING_BYTES_AT, 4},
      {HeaderLayout.CLUSTER_BITS_AT, 4},
      {HeaderLayout.VIRTUAL_BYTES_AT, 8},
      {HeaderLayout.CRYPT_METHOD_AT, 4},
      {HeaderLayout.L1_ENTRIES_AT, 4},
      {HeaderLayout.L1_OFFSET_AT, 8},
      {HeaderLayout.REFCOUNT_TABLE_OFFSET_AT, 8},
      {HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT, 4},
      {HeaderLayout.SNAPSHOT_COUNT_AT, 4},
      {HeaderLayout.SNAPSHOTS_OFFSET_AT, 8},
      {HeaderLayout.INCOMPATIBLE_AT, 8},
      {HeaderLayout.COMPATIBLE_AT, 8},
      {HeaderLayout.AUTOCLEAR_AT, 8},
      {HeaderLayout.REFCOUNT_ORDER_AT, 4},
      {HeaderLayout.HEADER_BYTES_AT, 4},
      {HeaderLayout.COMPRESSION_TYPE_AT, 1},
      {HeaderLayout.TAIL_AT, 7},
    };
    int end = 0;
    for (int[] field : atAndBytes) {
      assertEquals(end, field[0]);
      end += field[1];
    }
    assertEquals(HeaderLayout.V3_BYTES, end);
    assertEquals(HeaderLayout.V2_BYTES, HeaderLayout.INCOMPATIBLE_AT);
    assertEquals(HeaderLayout.V3_BYTES_MIN, HeaderLayout.COMPRESSION_TYPE_AT);
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 3})
  void readsWhatItWrites(int version) throws IOException {
    Header header =
        plain(version, 12)
            .backingFile("bäse.raw")
            .extensions(
                List.of(
                    HeaderExtension.ofText(HeaderExtension.BACKING_FORMAT, "raw"),
                    HeaderExtension.ofText(0x12345678, "kept"),
                    FeatureBits.nameTable()))
            .build();
    assertEquals(header, parse(header.encode()));
    assertEquals("raw", header.backingFormat());
  }

  @Test
  void keepsUnknownFieldsAndExtensions() throws IOException {
    ByteBuffer tail = ByteBuffer.allocate(128 - HeaderLayout.TAIL_AT).put(20, (byte) 7);
    Header header =
        plain(3, 12)
            .tail(128, tail)
            .compatibleFeatures(0x70)
            .autoclearFeatures(3)
            .extensions(
                List.of(
                    HeaderExtension.ofText(0x1111, "one"), HeaderExtension.ofText(0x1111, "two")))
            .build();
    Header reread = parse(header.encode());
    assertEquals(header, reread);
    Header changed = reread.toBuilder().autoclearFeatures(0).build();
    assertEquals(header.toBuilder().autoclearFeatures(0).build(), parse(changed.encode()));
  }

  @Test
  void readsTheShortestVersion3Header() throws IOException {
    Header header = plain(3, 9).tail(104, ByteBuffer.allocate(0)).build();
    assertEquals(header, parse(header.encode()));
  }

  @Test
  void fillsTheFirstClusterToTheLastByte() throws IOException {
    int room = 512 - HeaderLayout.V3_BYTES;
    HeaderBuilder header = plain(3, 9).virtualBytes(512);
    Header full = header.backingFile("n".repeat(room)).build();
    assertEquals(512, full.encodedBytes());
    assertEquals(full, parse(full.encode()));
    Header both =
        header
            .extensions(List.of(HeaderExtension.ofText(1, "x")))
            .backingFile("n".repeat(room - 9))
            .build();
    assertEquals(both, parse(both.encode()));
    Header over = header.backingFile("n".repeat(room - 8)).build();
    assertEquals(513, over.encodedBytes());
    assertThrows(AssertionError.class, over::encode);
  }

  @Test
  void takesABackingOffsetWithoutANameAsNone() throws IOException {
    ByteBuffer cluster = plain(3, 12).build().encode();
    cluster.putLong(HeaderLayout.BACKING_OFFSET_AT, 512);
    assertNull(parse(cluster).backingFile());
  }

  @Test
  void endsTheBackingNameAtAZeroByte() throws IOException {
    ByteBuffer cluster = plain(3, 12).backingFile("base.raw").build().encode();
    cluster.put((int) cluster.getLong(HeaderLayout.BACKING_OFFSET_AT) + 4, (byte) 0);
    assertEquals("base", parse(cluster).backingFile());
  }

  @Test
  void refusesOtherFiles() {
    assertTrue(
        message(ByteBuffer.wrap("#!/bin/sh".getBytes(StandardCharsets.US_ASCII)))
            .contains("not a qcow2 image"));
    assertTrue(message(ByteBuffer.allocate(0)).contains("not a qcow2 image"));
    ByteBuffer cut = plain(3, 12).build().encode().limit(4095);
    assertTrue(message(cut).contains("ends after 4095 bytes"));
    assertTrue(message(cut.limit(71)).contains("ends after 71 bytes"));
  }

  private static String message(ByteBuffer cluster) {
    IOException e = assertThrows(IOException.class, () -> parse(cluster));
    String message = String.valueOf(e.getMessage());
    assertTrue(message.startsWith("disk.qcow2: "), message);
    return message;
  }

  private static Arguments bad(String expected, Consumer<ByteBuffer> edit) {
    return Arguments.of(expected, edit);
  }

  static Stream<Arguments> badFields() {
    int extensionAt = HeaderLayout.V3_BYTES;
    return Stream.of(
        bad("version is 4", b -> b.putInt(HeaderLayout.VERSION_AT, 4)),
        bad("cluster_bits is 8", b -> b.putInt(HeaderLayout.CLUSTER_BITS_AT, 8)),
        bad("cluster_bits is 40", b -> b.putInt(HeaderLayout.CLUSTER_BITS_AT, 40)),
        bad("cluster_bits is 4294967295", b -> b.putInt(HeaderLayout.CLUSTER_BITS_AT, -1)),
        bad("expected less than 2^63", b -> b.put(HeaderLayout.VIRTUAL_BYTES_AT, (byte) 128)),
        bad("l1_size is 64", b -> b.putLong(HeaderLayout.VIRTUAL_BYTES_AT, (64L << 21) + 1)),
        bad("l1_size is 4194305", b -> b.putInt(HeaderLayout.L1_ENTRIES_AT, 4194305)),
        bad("l1_size is 4294967295", b -> b.putInt(HeaderLayout.L1_ENTRIES_AT, -1)),
        bad("l1_table_offset is 0x0", b -> b.putLong(HeaderLayout.L1_OFFSET_AT, 0)),
        bad("l1_table_offset is 0x1001", b -> b.putLong(HeaderLayout.L1_OFFSET_AT, 4097)),
        bad("l1_table_offset is 0x400000", b -> b.putLong(HeaderLayout.L1_OFFSET_AT, FILE_BYTES)),
        bad("l1_table_offset is 0xf", b -> b.putLong(HeaderLayout.L1_OFFSET_AT, -4096)),
        bad(
            "l1_table_offset is 0x7ffffffffffff000",
            b -> b.putLong(HeaderLayout.L1_OFFSET_AT, 0x7fff_ffff_ffff_f000L)),
        bad(
            "refcount_table_offset is 0x0",
            b -> b.putLong(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT, 0)),
        bad(
            "refcount_table_offset is 0x1200",
            b -> b.putLong(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT, 0x1200)),
        bad(
            "refcount_table_clusters is 0",
            b -> b.putInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT, 0)),
        bad(
            "refcount_table_clusters is 2049",
            b -> b.putInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT, 2049)),
        bad(
            "refcount_table_offset is 0x1000",
            b -> b.putInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT, 2048)),
        bad("nb_snapshots is 65537", b -> b.putInt(HeaderLayout.SNAPSHOT_COUNT_AT, 65537)),
        bad("snapshots_offset is 0x0", b -> b.putInt(HeaderLayout.SNAPSHOT_COUNT_AT, 1)),
        bad("refcount_order is 7", b -> b.putInt(HeaderLayout.REFCOUNT_ORDER_AT, 7)),
        bad("header_length is 96", b -> b.putInt(HeaderLayout.HEADER_BYTES_AT, 96)),
        bad("header_length is 108", b -> b.putInt(HeaderLayout.HEADER_BYTES_AT, 108)),
        bad("header_length is 4104", b -> b.putInt(HeaderLayout.HEADER_BYTES_AT, 4104)),
        bad("compression_type is 1", b -> b.put(HeaderLayout.COMPRESSION_TYPE_AT, (byte) 1)),
        bad("compression_type is 0", b -> b.putLong(HeaderLayout.INCOMPATIBLE_AT, 8)),
        bad("with extended L2 entries", b -> b.putLong(HeaderLayout.INCOMPATIBLE_AT, 16)),
        bad("backing_file_offset is 0x1001", b -> b.putLong(HeaderLayout.BACKING_OFFSET_AT, 4097)),
        bad("backing_file_size is 1024", b -> backing(b, 1024, 1024)),
        bad("backing_file_size is 17", b -> backing(b, 4080, 17)),
        bad("place after the header", b -> backing(b, 80, 4)),
        bad("has a length of 3977", b -> b.putInt(extensionAt, 0x55).putInt(extensionAt + 4, 3977)),
        bad(
            "has a length of 4294967295",
            b -> b.putInt(extensionAt, 0x55).putInt(extensionAt + 4, -1)),
        bad("runs past the extension area", b -> backing(b, extensionAt + 4, 4)),
        bad("0xe2792aca is there twice", HeaderTest::twoBackingFormats),
        bad("more than 256 header extensions", HeaderTest::manyExtensions));
  }

  private static void backing(ByteBuffer b, int offset, int bytes) {
    b.putLong(HeaderLayout.BACKING_OFFSET_AT, offset).putInt(HeaderLayout.BACKING_BYTES_AT, bytes);
    if (offset == HeaderLayout.V3_BYTES + 4) {
      b.putInt(HeaderLayout.V3_BYTES, 0x55);
    }
  }

  private static void twoBackingFormats(ByteBuffer b) {
    b.putInt(HeaderLayout.V3_BYTES, HeaderExtension.BACKING_FORMAT);
    b.putInt(HeaderLayout.V3_BYTES + 8, HeaderExtension.BACKING_FORMAT);
  }

  private static void manyExtensions(ByteBuffer b) {
    for (int index = 0; index < 257; index++) {
      b.putInt(HeaderLayout.V3_BYTES + 8 * index, 0x55);
    }
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("badFields")
  void refusesBadFields(String expected, Consumer<ByteBuffer> edit) {
    String message = message(edited(plain(3, 12).build(), edit));
    assertTrue(message.contains(expected), message);
  }

  @Test
  void allowsATableToEndInsideTheLastCluster() throws IOException {
    Header header = plain(3, 12).l1(15 << 12, 512).build();
    assertEquals(header, Header.parse("disk.qcow2", header.encode(), (15 << 12) + 1));
    assertThrows(
        CorruptImageException.class, () -> Header.parse("disk.qcow2", header.encode(), 15 << 12));
  }

  private static String refusal(HeaderBuilder header) {
    return String.valueOf(
        assertThrows(
                UnsupportedImageException.class, () -> header.build().requireReadable("disk.qcow2"))
            .getMessage());
  }

  @Test
  void namesUnknownIncompatibleFeatures() {
    ByteBuffer names = ByteBuffer.allocate(2 * FeatureBits.NAME_ENTRY_BYTES);
    names.put(1, (byte) 5).put(2, "new\nthing".getBytes(StandardCharsets.US_ASCII));
    names.put(48, (byte) 1).put(49, (byte) 63);
    String message =
        refusal(
            plain(3, 12)
                .incompatibleFeatures(1L << 5 | 1L << 63 | FeatureBits.DIRTY)
                .extensions(List.of(new HeaderExtension(HeaderExtension.FEATURE_NAMES, names))));
    assertTrue(message.endsWith("unknown here: new?thing, bit 63"), message);
  }

  @Test
  void refusesWhatItCannotRead() {
    assertTrue(refusal(plain(3, 12).cryptMethod(-1)).contains("method 4294967295"));
    assertTrue(
        refusal(plain(3, 12).cryptMethod(2).incompatibleFeatures(FeatureBits.DATA_FILE))
            .contains("encrypted and has an external data file"));
    long both = FeatureBits.DATA_FILE | FeatureBits.EXTENDED_L2;
    assertTrue(refusal(plain(3, 14).incompatibleFeatures(both)).contains("subclusters"));
    HeaderBuilder compressed =
        plain(3, 12).incompatibleFeatures(FeatureBits.COMPRESSION_TYPE).compressionType(1);
    assertTrue(refusal(compressed.compressionType(9)).contains("compressed with type 9"));
  }

  @Test
  void refusesToWriteWhatIsMarkedCorrupt() throws IOException {
    Header header = plain(3, 12).incompatibleFeatures(FeatureBits.CORRUPT).build();
    header.requireReadable("disk.qcow2");
    String message =
        String.valueOf(
            assertThrows(
                    UnsupportedImageException.class, () -> header.requireWritable("disk.qcow2"))
                .getMessage());
    assertTrue(message.contains("`qnbd check --repair all`"), message);
    plain(3, 12).build().requireWritable("disk.qcow2");
    // Dirty is no hindrance: opening for writing rebuilds the refcounts first.
    plain(3, 12).incompatibleFeatures(FeatureBits.DIRTY).build().requireWritable("disk.qcow2");
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3})
  void survivesRandomBytes(long seed) {
    Random random = new Random(seed);
    Header header =
        plain(3, 12).backingFile("base").extensions(List.of(FeatureBits.nameTable())).build();
    for (int round = 0; round < 20_000; round++) {
      ByteBuffer cluster = header.encode();
      for (int edits = random.nextInt(4); edits >= 0; edits--) {
        cluster.put(random.nextInt(random.nextBoolean() ? 112 : 700), (byte) random.nextInt());
      }
      try {
        Header parsed = parse(cluster);
        assertEquals(parsed, parse(parsed.encode()), () -> "seed " + seed);
        parsed.requireWritable("disk.qcow2");
      } catch (IOException e) {
        assertTrue(String.valueOf(e.getMessage()).startsWith("disk.qcow2: "), () -> "seed " + seed);
      } catch (RuntimeException | Error e) {
        throw new AssertionError("seed " + seed + ", round " + round, e);
      }
    }
  }
}
