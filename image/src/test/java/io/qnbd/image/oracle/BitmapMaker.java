package io.qnbd.image.oracle;

import io.qnbd.image.io.MemoryStorage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

/**
 * Puts persistent bitmaps into a version 3 image that {@link ImageMaker} made, byte by byte, and
 * says where each part of them is.
 */
public final class BitmapMaker {
  public static final int IN_USE = 1;
  public static final int AUTO = 2;
  public static final int EXTRA_DATA_COMPATIBLE = 4;

  private static final int EXTENSION_AT = 104;
  private static final int AUTOCLEAR_AT = 88;
  private static final int BITMAPS_EXTENSION = 0x23852875;

  /**
   * A bitmap to be made.
   *
   * @param bits set for what is dirty; those behind the disk's end are ignored
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  public record Bitmap(String name, int granularityBits, int flags, byte[] extraData, BitSet bits) {
    public Bitmap(String name, int granularityBits, BitSet bits) {
      this(name, granularityBits, AUTO, new byte[0], bits);
    }
  }

  /**
   * Where the parts of the bitmaps are.
   *
   * @param extension the data of the header extension
   * @param directory the first entry
   * @param tables each bitmap's table
   */
  public record Places(int extension, long directory, List<Long> tables) {}

  private BitmapMaker() {}

  /** Adds the bitmaps to an image that has no header extensions. */
  public static Places add(MemoryStorage file, List<Bitmap> bitmaps) throws IOException {
    RawQcow2 image = new RawQcow2(file);
    Long[] tables = new Long[bitmaps.size()];
    int directoryBytes = 0;
    for (int i = 0; i < tables.length; i++) {
      tables[i] = addTable(image, bitmaps.get(i));
      directoryBytes += entryBytes(bitmaps.get(i));
    }
    ByteBuffer directory = ByteBuffer.allocate(directoryBytes);
    for (int i = 0; i < tables.length; i++) {
      Bitmap bitmap = bitmaps.get(i);
      byte[] name = bitmap.name().getBytes(StandardCharsets.UTF_8);
      int end = directory.position() + entryBytes(bitmap);
      directory.putLong(tables[i]).putInt(tableEntries(image, bitmap)).putInt(bitmap.flags());
      directory.put((byte) 1).put((byte) bitmap.granularityBits()).putShort((short) name.length);
      directory.putInt(bitmap.extraData().length).put(bitmap.extraData()).put(name).position(end);
    }
    long at = counted(image, directoryBytes);
    file.write(at, directory.flip());
    ByteBuffer extension = ByteBuffer.allocate(40);
    extension.putInt(BITMAPS_EXTENSION).putInt(24);
    extension.putInt(bitmaps.size()).putInt(0).putLong(directoryBytes).putLong(at);
    file.write(EXTENSION_AT, extension.clear());
    image.putLong(AUTOCLEAR_AT, 1);
    return new Places(EXTENSION_AT + 8, at, List.copyOf(Arrays.asList(tables)));
  }

  /** Length of a directory entry. */
  public static int entryBytes(Bitmap bitmap) {
    int name = bitmap.name().getBytes(StandardCharsets.UTF_8).length;
    return (24 + bitmap.extraData().length + name + 7) & ~7;
  }

  private static long bitCount(RawQcow2 image, Bitmap bitmap) {
    return (image.virtualBytes + (1L << bitmap.granularityBits()) - 1) >> bitmap.granularityBits();
  }

  private static int tableEntries(RawQcow2 image, Bitmap bitmap) {
    return (int) image.clusters((bitCount(image, bitmap) + 7) / 8);
  }

  private static long addTable(RawQcow2 image, Bitmap bitmap) throws IOException {
    int entries = tableEntries(image, bitmap);
    long table = counted(image, entries * 8L);
    int perCluster = image.clusterBytes * 8;
    int count = (int) bitCount(image, bitmap);
    for (int i = 0; i < entries; i++) {
      int from = i * perCluster;
      int to = Math.min(count, from + perCluster);
      BitSet bits = bitmap.bits().get(from, to);
      if (bits.cardinality() == perCluster) {
        image.putLong(table + 8L * i, 1);
      } else if (!bits.isEmpty()) {
        long data = counted(image, image.clusterBytes);
        byte[] bytes = new byte[image.clusterBytes];
        for (int bit = bits.nextSetBit(0); bit >= 0; bit = bits.nextSetBit(bit + 1)) {
          bytes[bit / 8] |= (byte) (1 << (bit % 8));
        }
        image.file.write(data, ByteBuffer.wrap(bytes));
        image.putLong(table + 8L * i, data);
      }
    }
    return table;
  }

  private static long counted(RawQcow2 image, long bytes) throws IOException {
    int clusters = (int) Math.max(1, image.clusters(bytes));
    long at = image.append(clusters);
    for (int i = 0; i < clusters; i++) {
      image.setRefcount(at / image.clusterBytes + i, 1);
    }
    return at;
  }
}
