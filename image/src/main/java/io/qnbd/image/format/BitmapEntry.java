package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.jspecify.annotations.Nullable;

/**
 * One persistent bitmap as its directory entry has it (qcow2 specification, "Bitmap directory").
 *
 * <pre>
 *  0  8 offset of the bitmap table     17  1 granularity bits
 *  8  4 entries of the bitmap table    18  2 length of the name
 * 12  4 flags                          20  4 length of the extra data
 * 16  1 type: 1                        24    extra data, name, padding to a multiple of 8
 * </pre>
 *
 * <p>Reading an entry judges it alone; {@link #requireTable} judges its table against the image.
 *
 * @param tableEntries at most {@link #TABLE_ENTRIES_MAX}
 * @param flags the three that the specification has, no others
 * @param usable there is no extra data whose meaning we would have to know
 * @param granularityBits 9 to 31
 * @param name null when it is not UTF-8, so that nobody can ask for it
 */
public record BitmapEntry(
    long tableOffset,
    int tableEntries,
    int flags,
    boolean usable,
    int granularityBits,
    @Nullable String name) {

  /** The part of an entry that is always there. */
  public static final int FIXED_BYTES = 24;

  public static final int TABLE_ENTRIES_AT = 8;
  public static final int FLAGS_AT = 12;
  private static final int TYPE_AT = 16;
  private static final int GRANULARITY_AT = 17;
  private static final int NAME_BYTES_AT = 18;
  private static final int EXTRA_BYTES_AT = 20;

  /** Whoever wrote the bitmap last did not get to the end of it: it can't be believed. */
  public static final int IN_USE = 1;

  /** Whoever writes to the disk must record it here. */
  public static final int AUTO = 1 << 1;

  private static final int EXTRA_DATA_COMPATIBLE = 1 << 2;
  private static final int FLAGS_KNOWN = IN_USE | AUTO | EXTRA_DATA_COMPATIBLE;

  private static final int DIRTY_TRACKING = 1;

  /** QEMU's limits. */
  public static final int TABLE_ENTRIES_MAX = 0x800_0000;

  public static final int NAME_BYTES_MAX = 1023;
  public static final int GRANULARITY_BITS_MIN = 9;
  public static final int GRANULARITY_BITS_MAX = 31;

  /** QEMU's limit on a bitmap's data: bounds how long it takes to walk through one. */
  private static final long DATA_BYTES_MAX = 512L << 20;

  /** How long the entry is that begins with these {@link #FIXED_BYTES}, padding included. */
  public static long bytes(ByteBuffer fixedPart) {
    return (nameAt(fixedPart) + nameBytes(fixedPart) + 7) & ~7L;
  }

  /** Where the name begins, from the start of the entry. */
  public static long nameAt(ByteBuffer fixedPart) {
    return FIXED_BYTES
        + Integer.toUnsignedLong(HeaderParser.bigEndian(fixedPart).getInt(EXTRA_BYTES_AT));
  }

  /** How long the name is, as the entry has it. */
  public static int nameBytes(ByteBuffer fixedPart) {
    return Short.toUnsignedInt(HeaderParser.bigEndian(fixedPart).getShort(NAME_BYTES_AT));
  }

  /**
   * Reads one entry.
   *
   * @param index the entry's number, from 0
   * @param nameBytes the name, as long as {@link #nameBytes} says
   */
  public static BitmapEntry parse(
      String fileName, int index, ByteBuffer fixedPart, ByteBuffer nameBytes)
      throws CorruptImageException {
    ByteBuffer in = HeaderParser.bigEndian(fixedPart);
    int flags = in.getInt(FLAGS_AT);
    int type = Byte.toUnsignedInt(in.get(TYPE_AT));
    int granularityBits = Byte.toUnsignedInt(in.get(GRANULARITY_AT));
    long tableEntries = Integer.toUnsignedLong(in.getInt(TABLE_ENTRIES_AT));
    require(fileName, index, (flags & ~FLAGS_KNOWN) == 0, "flags", flags, "bits 0 to 2 only");
    require(fileName, index, type == DIRTY_TRACKING, "type", type, "1");
    require(
        fileName,
        index,
        granularityBits >= GRANULARITY_BITS_MIN && granularityBits <= GRANULARITY_BITS_MAX,
        "granularity_bits",
        granularityBits,
        GRANULARITY_BITS_MIN + " to " + GRANULARITY_BITS_MAX);
    require(
        fileName,
        index,
        tableEntries <= TABLE_ENTRIES_MAX,
        "bitmap_table_size",
        tableEntries,
        "at most " + TABLE_ENTRIES_MAX);
    int length = nameBytes.remaining();
    require(
        fileName,
        index,
        length >= 1 && length <= NAME_BYTES_MAX,
        "name_size",
        length,
        "1 to " + NAME_BYTES_MAX);
    for (int at = nameBytes.position(); at < nameBytes.limit(); at++) {
      require(fileName, index, nameBytes.get(at) != 0, "name", 0, "no zero byte in it");
    }
    return new BitmapEntry(
        in.getLong(0),
        (int) tableEntries,
        flags,
        in.getInt(EXTRA_BYTES_AT) == 0 || (flags & EXTRA_DATA_COMPATIBLE) != 0,
        granularityBits,
        Names.exact(nameBytes));
  }

  /** Throws when the table can't be one for a disk of {@code virtualBytes} in that image. */
  public void requireTable(
      String fileName, int index, int clusterBytes, long virtualBytes, long fileBytes)
      throws CorruptImageException {
    long entries = tableEntriesFor(virtualBytes, granularityBits, clusterBytes);
    require(
        fileName,
        index,
        tableEntries == entries,
        "bitmap_table_size",
        tableEntries,
        entries + " for a disk of " + virtualBytes + " bytes");
    require(
        fileName,
        index,
        dataFits(entries, clusterBytes),
        "bitmap_table_size",
        tableEntries,
        "at most " + DATA_BYTES_MAX / clusterBytes);
    if (entries == 0) {
      return;
    }
    long tableBytes = entries * Long.BYTES;
    if (tableOffset <= 0
        || tableOffset % clusterBytes != 0
        || tableOffset > fileBytes - tableBytes) {
      throw new CorruptImageException(
          "%s: bitmap %d has its table of %d bytes at 0x%x, expected a cluster inside the file"
              .formatted(fileName, index, tableBytes, tableOffset));
    }
  }

  /** How many entries the table of a bitmap has for such a disk. */
  public static long tableEntriesFor(long virtualBytes, int granularityBits, int clusterBytes) {
    long bits = Math.ceilDiv(virtualBytes, 1L << granularityBits);
    return Math.ceilDiv(Math.ceilDiv(bits, Byte.SIZE), (long) clusterBytes);
  }

  /** Whether a table of that length keeps within the limit on a bitmap's data. */
  public static boolean dataFits(long tableEntries, int clusterBytes) {
    return tableEntries * clusterBytes <= DATA_BYTES_MAX;
  }

  public long granularityBytes() {
    return 1L << granularityBits;
  }

  public boolean inUse() {
    return (flags & IN_USE) != 0;
  }

  public boolean auto() {
    return (flags & AUTO) != 0;
  }

  public BitmapEntry withFlags(int value) {
    return new BitmapEntry(tableOffset, tableEntries, value, usable, granularityBits, name);
  }

  public BitmapEntry withTable(long offset, int entries) {
    return new BitmapEntry(offset, entries, flags, usable, granularityBits, name);
  }

  /** The bytes of an entry without extra data; its name can be said. */
  public ByteBuffer encode() {
    if (name == null) {
      throw new AssertionError("an entry that is made here has a name");
    }
    byte[] nameBytes = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer out = ByteBuffer.allocate((FIXED_BYTES + nameBytes.length + 7) & ~7);
    out.put(TYPE_AT, (byte) DIRTY_TRACKING);
    out.put(GRANULARITY_AT, (byte) granularityBits);
    out.putShort(NAME_BYTES_AT, (short) nameBytes.length);
    out.put(FIXED_BYTES, nameBytes);
    putChangeable(out);
    return out;
  }

  /** Puts table and flags, which alone may change, into the bytes of an entry. */
  public void putChangeable(ByteBuffer bytes) {
    bytes.putLong(0, tableOffset);
    bytes.putInt(TABLE_ENTRIES_AT, tableEntries);
    bytes.putInt(FLAGS_AT, flags);
  }

  private static void require(
      String fileName, int index, boolean holds, String field, long value, String expected)
      throws CorruptImageException {
    if (!holds) {
      throw new CorruptImageException(
          "%s: bitmap %d: %s is %d, expected %s"
              .formatted(fileName, index, field, value, expected));
    }
  }
}
