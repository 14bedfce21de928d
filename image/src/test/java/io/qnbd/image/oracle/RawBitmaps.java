package io.qnbd.image.oracle;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/** The persistent bitmaps of an image, taken apart byte by byte. */
public final class RawBitmaps {
  private static final int EXTENSION = 0x23852875;

  /**
   * A bitmap that was found.
   *
   * @param bits empty while it is in use
   */
  public record Found(String name, int granularityBits, boolean inUse, boolean auto, BitSet bits) {}

  interface Place {
    void at(long offset, long bytes, String what);
  }

  private interface Entry {
    void at(ByteBuffer entry, String name);
  }

  private RawBitmaps() {}

  /** Those of the directory; none while the header says that they are out of date. */
  public static List<Found> read(RawQcow2 image) {
    List<Found> found = new ArrayList<>();
    forEachEntry(
        image,
        (entry, name) -> {
          int flags = entry.getInt(12);
          boolean inUse = (flags & 1) != 0;
          BitSet bits = inUse ? new BitSet() : bits(image, entry, name);
          found.add(new Found(name, entry.get(17), inUse, (flags & 2) != 0, bits));
        });
    return found;
  }

  /** All that the bitmaps take in the file. */
  static void forEachPlace(RawQcow2 image, Place place) {
    ByteBuffer extension = extension(image);
    if (extension.hasRemaining()) {
      place.at(extension.getLong(16), extension.getLong(8), "bitmap directory");
    }
    forEachEntry(
        image,
        (entry, name) -> {
          place.at(entry.getLong(0), entry.getInt(8) * 8L, "table of bitmap " + name);
          for (long value : image.longs(entry.getLong(0), entry.getInt(8))) {
            if (value > 1) {
              place.at(value, image.clusterBytes, "bitmap " + name);
            }
          }
        });
  }

  private static BitSet bits(RawQcow2 image, ByteBuffer entry, String name) {
    long count = (image.virtualBytes + (1L << entry.get(17)) - 1) >> entry.get(17);
    int perCluster = image.clusterBytes * 8;
    long[] table = image.longs(entry.getLong(0), entry.getInt(8));
    if (table.length != (count + perCluster - 1) / perCluster) {
      throw new AssertionError("bitmap " + name + " has a table of " + table.length + " entries");
    }
    BitSet bits = new BitSet();
    for (int i = 0; i < table.length; i++) {
      if (table[i] == 1) {
        bits.set(i * perCluster, (int) Math.min(count, (i + 1L) * perCluster));
      } else if (table[i] != 0) {
        BitSet part = BitSet.valueOf(image.file.bytes(table[i], image.clusterBytes));
        for (int bit = part.nextSetBit(0); bit >= 0; bit = part.nextSetBit(bit + 1)) {
          bits.set(i * perCluster + bit);
        }
      }
    }
    if (bits.length() > count) {
      throw new AssertionError("bitmap " + name + " has a bit behind the end of the disk");
    }
    return bits;
  }

  private static void forEachEntry(RawQcow2 image, Entry action) {
    ByteBuffer extension = extension(image);
    if (!extension.hasRemaining()) {
      return;
    }
    int count = extension.getInt(0);
    long at = extension.getLong(16);
    long end = at + extension.getLong(8);
    for (int i = 0; i < count; i++) {
      ByteBuffer entry = ByteBuffer.wrap(image.file.bytes(at, 24));
      int nameBytes = entry.getShort(18);
      int extraBytes = entry.getInt(20);
      String name =
          new String(image.file.bytes(at + 24 + extraBytes, nameBytes), StandardCharsets.UTF_8);
      action.at(entry, name);
      at += (24 + extraBytes + nameBytes + 7) & ~7;
    }
    if (at != end) {
      throw new AssertionError("the bitmap directory ends at " + at + ", not at " + end);
    }
  }

  /** The data of the extension; nothing without one that may be believed. */
  private static ByteBuffer extension(RawQcow2 image) {
    ByteBuffer header = ByteBuffer.wrap(image.file.bytes(0, image.clusterBytes));
    boolean believed = image.version >= 3 && (header.getLong(88) & 1) != 0;
    for (int at = image.version >= 3 ? header.getInt(100) : 72; at + 8 <= header.limit(); ) {
      int type = header.getInt(at);
      if (type == 0) {
        break;
      }
      if (type == EXTENSION) {
        return believed ? header.slice(at + 8, 24) : ByteBuffer.allocate(0);
      }
      at += 8 + ((header.getInt(at + 4) + 7) & ~7);
    }
    if (believed) {
      throw new AssertionError("the autoclear bit is set without bitmaps");
    }
    return ByteBuffer.allocate(0);
  }
}
