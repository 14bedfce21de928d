package io.qnbd.image.oracle;

import io.qnbd.image.io.MemoryStorage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** Takes an internal snapshot of an image that nobody has open, byte by byte. */
public final class SnapshotMaker {
  private static final int EXTRA_BYTES = 16;

  private SnapshotMaker() {}

  /** Adds a snapshot of the active disk; the image's refcounts must be wider than one bit. */
  public static void take(MemoryStorage file, String name) throws IOException {
    RawQcow2 image = new RawQcow2(file);
    if (image.refcountBits == 1) {
      throw new AssertionError("one bit cannot count two references");
    }
    shareTables(image);
    long l1Copy = appendCounted(image, Math.max(8, image.l1Entries * 8L));
    ByteBuffer l1 = ByteBuffer.allocate(image.l1Entries * 8);
    for (long entry : image.l1()) {
      l1.putLong(entry);
    }
    file.write(l1Copy, l1.flip());

    byte[] older = file.bytes(image.snapshotTableOffset, (int) image.snapshotTableBytes());
    ByteBuffer entry = entry(image, l1Copy, name);
    long table = appendCounted(image, (long) older.length + entry.remaining());
    file.write(table, ByteBuffer.wrap(older));
    file.write(table + older.length, entry);
    file.write(60, ByteBuffer.allocate(12).putInt(image.snapshotCount() + 1).putLong(table).flip());
    for (long c = 0; c < image.clusters(older.length); c++) {
      image.setRefcount(image.snapshotTableOffset / image.clusterBytes + c, 0);
    }
  }

  private static ByteBuffer entry(RawQcow2 image, long l1Copy, String name) {
    byte[] id = Integer.toString(image.snapshotCount() + 1).getBytes(StandardCharsets.UTF_8);
    byte[] nameBytes = name.getBytes(StandardCharsets.UTF_8);
    int bytes = (40 + EXTRA_BYTES + id.length + nameBytes.length + 7) & ~7;
    ByteBuffer entry = ByteBuffer.allocate(bytes);
    entry.putLong(l1Copy).putInt(image.l1Entries);
    entry.putShort((short) id.length).putShort((short) nameBytes.length);
    entry.putInt(1_700_000_000).putInt(0).putLong(0).putInt(0).putInt(EXTRA_BYTES);
    entry.putLong(0).putLong(image.virtualBytes).put(id).put(nameBytes);
    return entry.clear();
  }

  /** One more reference to each L2 table and to all that it refers to; none is COPIED any more. */
  private static void shareTables(RawQcow2 image) throws IOException {
    long[] l1 = image.l1();
    for (int i = 0; i < l1.length; i++) {
      long table = l1[i] & RawQcow2.OFFSET_MASK;
      if (table == 0) {
        continue;
      }
      addReference(image, table, image.clusterBytes);
      image.putLong(image.l1Offset + 8L * i, table);
      long[] l2 = image.l2(table);
      for (int j = 0; j < l2.length; j++) {
        if ((l2[j] & RawQcow2.COMPRESSED) != 0) {
          long[] range = image.compressedRange(l2[j]);
          addReference(image, range[0], range[1] - range[0]);
        } else if ((l2[j] & RawQcow2.OFFSET_MASK) != 0) {
          addReference(image, l2[j] & RawQcow2.OFFSET_MASK, image.clusterBytes);
          image.putLong(image.l2EntryAt(table, j), l2[j] & ~RawQcow2.COPIED);
        }
      }
    }
  }

  private static void addReference(RawQcow2 image, long at, long bytes) throws IOException {
    for (long c = at / image.clusterBytes; c <= (at + bytes - 1) / image.clusterBytes; c++) {
      image.setRefcount(c, image.refcount(c) + 1);
    }
  }

  private static long appendCounted(RawQcow2 image, long bytes) throws IOException {
    int clusters = (int) image.clusters(bytes);
    long at = image.append(clusters);
    for (int i = 0; i < clusters; i++) {
      image.setRefcount(at / image.clusterBytes + i, 1);
    }
    return at;
  }
}
