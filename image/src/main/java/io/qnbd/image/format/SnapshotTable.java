package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** The directory of internal snapshots: entries of varying length, one after the other. */
public record SnapshotTable(List<SnapshotEntry> entries) {
  /** QEMU's limit. */
  public static final int BYTES_MAX = 64 << 20;

  public SnapshotTable {
    entries = List.copyOf(entries);
  }

  /** Reads {@code count} entries; what follows them in the buffer is ignored. */
  public static SnapshotTable parse(String fileName, ByteBuffer table, int count)
      throws CorruptImageException {
    List<SnapshotEntry> entries = new ArrayList<>();
    int at = 0;
    for (int index = 0; index < count; index++) {
      int left = Math.max(0, table.remaining() - at);
      ByteBuffer rest = table.slice(table.position() + Math.min(at, table.remaining()), left);
      SnapshotEntry entry = SnapshotEntry.parse(fileName, index, rest);
      entries.add(entry);
      at += entry.bytes();
      requireBytes(fileName, at);
    }
    return new SnapshotTable(entries);
  }

  /** Throws when a table of that length is too long. */
  public static void requireBytes(String fileName, long bytes) throws CorruptImageException {
    if (bytes > BYTES_MAX) {
      throw new CorruptImageException(
          String.format("%s: the snapshot table is longer than %d bytes", fileName, BYTES_MAX));
    }
  }

  /** Bytes on disk. */
  public long bytes() {
    long bytes = 0;
    for (SnapshotEntry entry : entries) {
      bytes += entry.bytes();
    }
    return bytes;
  }

  public ByteBuffer encode() {
    if (bytes() > BYTES_MAX) {
      throw new AssertionError("snapshot table to write takes " + bytes() + " bytes");
    }
    ByteBuffer out = ByteBuffer.allocate((int) bytes());
    for (SnapshotEntry entry : entries) {
      entry.encode(out);
    }
    return out.flip();
  }
}
