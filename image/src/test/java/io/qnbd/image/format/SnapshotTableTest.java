package io.qnbd.image.format;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;

final class SnapshotTableTest {
  private static ByteBuffer text(String text) {
    return ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
  }

  private static SnapshotEntry entry(String name, int extraBytes) {
    ByteBuffer extra = ByteBuffer.allocate(extraBytes);
    if (extraBytes >= 16) {
      extra.putLong(0, 5L << 32).putLong(8, 1 << 20);
    }
    return new SnapshotEntry(
        0x30000, 7, 0xffff_ffffL, 9, 10, 0xf000_0000L, extra, text("1"), text(name));
  }

  @Test
  void readsWhatItWrites() throws CorruptImageException {
    SnapshotTable table =
        new SnapshotTable(
            List.of(entry("first", 24), entry("", 0), entry("n".repeat(65535), 1024)));
    ByteBuffer bytes = table.encode();
    assertEquals(table.bytes(), bytes.remaining());
    assertEquals(table, SnapshotTable.parse("disk.qcow2", bytes, 3));
    assertEquals("first", table.entries().get(0).nameText());
    assertEquals("1", table.entries().get(0).idText());
  }

  @Test
  void takesSizesFromTheExtraDataWhereThereIsSome() {
    assertEquals(5L << 32, entry("a", 24).vmStateBytes());
    assertEquals(OptionalLong.of(1 << 20), entry("a", 24).virtualBytes());
    assertEquals(0xf000_0000L, entry("a", 0).vmStateBytes());
    assertEquals(OptionalLong.empty(), entry("a", 0).virtualBytes());
  }

  @Test
  void acceptsMissingPaddingAtTheEnd() throws CorruptImageException {
    ByteBuffer bytes = new SnapshotTable(List.of(entry("abc", 16))).encode();
    ByteBuffer cut = bytes.slice(0, 40 + 16 + 1 + 3);
    assertEquals("abc", SnapshotTable.parse("disk.qcow2", cut, 1).entries().get(0).nameText());
    cut.limit(cut.limit() - 1);
    assertRefused("runs past the end", cut, 1);
  }

  @Test
  void refusesWhatRunsOutOfBounds() {
    ByteBuffer bytes = new SnapshotTable(List.of(entry("abc", 16))).encode();
    assertRefused("snapshot 1 runs past the end", bytes, 2);
    assertRefused("snapshot 0 runs past the end", ByteBuffer.allocate(39), 1);
    bytes.putInt(36, 1025);
    assertRefused("snapshot 0 has 1025 bytes of extra data", bytes, 1);
    bytes.putInt(36, -1);
    assertRefused("snapshot 0 has 4294967295 bytes of extra data", bytes, 1);
    assertThrows(
        CorruptImageException.class,
        () -> SnapshotTable.requireBytes("disk.qcow2", SnapshotTable.BYTES_MAX + 1L));
  }

  private static void assertRefused(String expected, ByteBuffer bytes, int count) {
    String message =
        String.valueOf(
            assertThrows(
                    CorruptImageException.class,
                    () -> SnapshotTable.parse("disk.qcow2", bytes, count))
                .getMessage());
    assertTrue(message.contains(expected), message);
  }

  @Test
  void refusesAnL1TableOutsideTheFile() throws CorruptImageException {
    Header header = new HeaderBuilder(3, 16).refcountTable(0x10000, 1).l1(0x30000, 1).build();
    entry("a", 16).requireTable("disk.qcow2", 0, header.clusterBytes(), 0x30001);
    String message =
        String.valueOf(
            assertThrows(
                    CorruptImageException.class,
                    () ->
                        entry("a", 16)
                            .requireTable("disk.qcow2", 4, header.clusterBytes(), 0x30000))
                .getMessage());
    assertTrue(message.contains("snapshot 4: L1 offset is 0x30000"), message);
  }
}
