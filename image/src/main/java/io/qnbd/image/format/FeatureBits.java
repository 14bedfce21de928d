package io.qnbd.image.format;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The feature bits that the specification defines, and the names of these and of others. */
public final class FeatureBits {
  /** Incompatible: refcounts may be out of date. */
  public static final long DIRTY = 1L << 0;

  /** Incompatible: any metadata may be wrong. */
  public static final long CORRUPT = 1L << 1;

  /** Incompatible: guest data is kept in a second file. */
  public static final long DATA_FILE = 1L << 2;

  /** Incompatible: compressed clusters are not deflate; see the compression type. */
  public static final long COMPRESSION_TYPE = 1L << 3;

  /** Incompatible: L2 entries of 16 bytes, with subclusters. */
  public static final long EXTENDED_L2 = 1L << 4;

  /** All incompatible bits that the specification defines. */
  public static final long INCOMPATIBLE_KNOWN =
      DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;

  /** Compatible: a writer may postpone refcount updates behind the dirty bit. */
  public static final long LAZY_REFCOUNTS = 1L << 0;

  /** Autoclear: the bitmaps extension is consistent. */
  public static final long BITMAPS = 1L << 0;

  /** Autoclear: the external data file alone reads as the disk. */
  public static final long RAW_DATA_FILE = 1L << 1;

  /** All autoclear bits that the specification defines. */
  public static final long AUTOCLEAR_KNOWN = BITMAPS | RAW_DATA_FILE;

  /** Set, bit and name padded with zeroes (qcow2 specification, "Feature name table"). */
  static final int NAME_ENTRY_BYTES = 48;

  private static final int NAME_AT = 2;

  private record Feature(FeatureSet set, long bit, String name) {}

  private static final List<Feature> KNOWN =
      List.of(
          new Feature(FeatureSet.INCOMPATIBLE, DIRTY, "dirty bit"),
          new Feature(FeatureSet.INCOMPATIBLE, CORRUPT, "corrupt bit"),
          new Feature(FeatureSet.INCOMPATIBLE, DATA_FILE, "external data file"),
          new Feature(FeatureSet.INCOMPATIBLE, COMPRESSION_TYPE, "compression type"),
          new Feature(FeatureSet.INCOMPATIBLE, EXTENDED_L2, "extended L2 entries"),
          new Feature(FeatureSet.COMPATIBLE, LAZY_REFCOUNTS, "lazy refcounts"),
          new Feature(FeatureSet.AUTOCLEAR, BITMAPS, "bitmaps"),
          new Feature(FeatureSet.AUTOCLEAR, RAW_DATA_FILE, "raw external data"));

  private FeatureBits() {}

  /** The extension that tells other software what the bits above are called. */
  public static HeaderExtension nameTable() {
    ByteBuffer table = ByteBuffer.allocate(KNOWN.size() * NAME_ENTRY_BYTES);
    for (int index = 0; index < KNOWN.size(); index++) {
      Feature feature = KNOWN.get(index);
      int at = index * NAME_ENTRY_BYTES;
      table.put(at, feature.set().number());
      table.put(at + 1, (byte) Long.numberOfTrailingZeros(feature.bit()));
      table.put(at + NAME_AT, feature.name().getBytes(StandardCharsets.US_ASCII));
    }
    return new HeaderExtension(HeaderExtension.FEATURE_NAMES, table);
  }

  /**
   * The names of the bits that are set: ours, else the image's, else {@code bit N}.
   *
   * @param table the image's own name table, if it has one
   */
  public static List<String> names(FeatureSet set, long bits, @Nullable HeaderExtension table) {
    List<String> names = new ArrayList<>();
    for (int bit = 0; bit < Long.SIZE; bit++) {
      if ((bits >>> bit & 1) != 0) {
        names.add(name(set, bit, table));
      }
    }
    return names;
  }

  private static String name(FeatureSet set, int bit, @Nullable HeaderExtension table) {
    for (Feature feature : KNOWN) {
      if (feature.set() == set && feature.bit() == 1L << bit) {
        return feature.name();
      }
    }
    if (table != null) {
      ByteBuffer entries = table.data();
      for (int at = 0; at + NAME_ENTRY_BYTES <= entries.limit(); at += NAME_ENTRY_BYTES) {
        if (entries.get(at) == set.number() && entries.get(at + 1) == bit) {
          String name =
              Names.printable(entries.slice(at + NAME_AT, NAME_ENTRY_BYTES - NAME_AT)).strip();
          return name.isEmpty() ? "bit " + bit : name;
        }
      }
    }
    return "bit " + bit;
  }
}
