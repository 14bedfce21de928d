package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import java.nio.ByteBuffer;
import java.util.OptionalLong;

/**
 * One internal snapshot as its table entry has it, losslessly (qcow2 specification, "Snapshots").
 *
 * <pre>
 *  0  8 L1 offset                24  8 the guest's run time, nanoseconds
 *  8  4 L1 entries               32  4 bytes of machine state, unless the extra data says
 * 12  2 length of the id         36  4 length of the extra data
 * 14  2 length of the name       40    extra data: 8 bytes of machine state, 8 virtual disk size, …
 * 16  4 taken, seconds                 id, name, padding to a multiple of 8
 * 20  4 taken, nanoseconds
 * </pre>
 *
 * <p>Reading an entry bounds its lengths only; {@link #requireTable} judges where it points.
 *
 * @param l1Entries at most 2^32 - 1
 * @param takenSeconds since 1970, at most 2^32 - 1
 * @param vmStateBytes32 the field that the extra data overrides
 */
public record SnapshotEntry(
    long l1Offset,
    long l1Entries,
    long takenSeconds,
    long takenNanos,
    long vmClockNanos,
    long vmStateBytes32,
    ByteBuffer extraData,
    ByteBuffer id,
    ByteBuffer name) {

  /** The part of an entry that is always there. */
  public static final int FIXED_BYTES = 40;

  /** Far more than any writer adds; QEMU's limit. */
  public static final int EXTRA_BYTES_MAX = 1024;

  /** Version 3 promises this much extra data. */
  public static final int EXTRA_BYTES_V3 = 16;

  private static final int L1_ENTRIES_AT = 8;
  private static final int ID_BYTES_AT = 12;
  private static final int NAME_BYTES_AT = 14;
  private static final int TAKEN_SECONDS_AT = 16;
  private static final int TAKEN_NANOS_AT = 20;
  private static final int VM_CLOCK_AT = 24;
  private static final int VM_STATE_AT = 32;
  private static final int EXTRA_BYTES_AT = 36;

  public SnapshotEntry {
    extraData = copy(extraData);
    id = copy(id);
    name = copy(name);
  }

  private static ByteBuffer copy(ByteBuffer bytes) {
    byte[] copy = new byte[bytes.remaining()];
    bytes.get(bytes.position(), copy);
    return ByteBuffer.wrap(copy).asReadOnlyBuffer();
  }

  /**
   * How long the entry is that begins with these {@link #FIXED_BYTES}, padding included; at most
   * 132 KiB.
   */
  public static int bytes(String fileName, int index, ByteBuffer fixedPart)
      throws CorruptImageException {
    ByteBuffer in = HeaderParser.bigEndian(fixedPart);
    long extraBytes = Integer.toUnsignedLong(in.getInt(EXTRA_BYTES_AT));
    if (extraBytes > EXTRA_BYTES_MAX) {
      throw new CorruptImageException(
          String.format(
              "%s: snapshot %d has %d bytes of extra data, expected at most %d",
              fileName, index, extraBytes, EXTRA_BYTES_MAX));
    }
    int idBytes = Short.toUnsignedInt(in.getShort(ID_BYTES_AT));
    int nameBytes = Short.toUnsignedInt(in.getShort(NAME_BYTES_AT));
    return (FIXED_BYTES + (int) extraBytes + idBytes + nameBytes + 7) & ~7;
  }

  /**
   * Reads one entry; the buffer's position stays. The padding of a table's last entry may be
   * missing.
   */
  public static SnapshotEntry parse(String fileName, int index, ByteBuffer entry)
      throws CorruptImageException {
    if (entry.remaining() < FIXED_BYTES || entry.remaining() < bytes(fileName, index, entry) - 7) {
      throw new CorruptImageException(
          String.format("%s: snapshot %d runs past the end of the file", fileName, index));
    }
    ByteBuffer in = HeaderParser.bigEndian(entry);
    int idAt = FIXED_BYTES + in.getInt(EXTRA_BYTES_AT);
    int nameAt = idAt + Short.toUnsignedInt(in.getShort(ID_BYTES_AT));
    int end = nameAt + Short.toUnsignedInt(in.getShort(NAME_BYTES_AT));
    if (end > in.limit()) {
      throw new CorruptImageException(
          String.format("%s: snapshot %d runs past the end of the file", fileName, index));
    }
    return new SnapshotEntry(
        in.getLong(0),
        Integer.toUnsignedLong(in.getInt(L1_ENTRIES_AT)),
        Integer.toUnsignedLong(in.getInt(TAKEN_SECONDS_AT)),
        Integer.toUnsignedLong(in.getInt(TAKEN_NANOS_AT)),
        in.getLong(VM_CLOCK_AT),
        Integer.toUnsignedLong(in.getInt(VM_STATE_AT)),
        in.slice(FIXED_BYTES, idAt - FIXED_BYTES),
        in.slice(idAt, nameAt - idAt),
        in.slice(nameAt, end - nameAt));
  }

  /** Bytes on disk, padding included. */
  public int bytes() {
    return (FIXED_BYTES + extraData.remaining() + id.remaining() + name.remaining() + 7) & ~7;
  }

  /** Puts the entry, with its padding, at the position of {@code out}, a big-endian buffer. */
  void encode(ByteBuffer out) {
    int end = out.position() + bytes();
    out.putLong(l1Offset).putInt((int) l1Entries);
    out.putShort((short) id.remaining()).putShort((short) name.remaining());
    out.putInt((int) takenSeconds).putInt((int) takenNanos).putLong(vmClockNanos);
    out.putInt((int) vmStateBytes32).putInt(extraData.remaining());
    out.put(extraData()).put(id()).put(name());
    while (out.position() < end) {
      out.put((byte) 0);
    }
  }

  @Override
  public ByteBuffer extraData() {
    return extraData.duplicate();
  }

  @Override
  public ByteBuffer id() {
    return id.duplicate();
  }

  @Override
  public ByteBuffer name() {
    return name.duplicate();
  }

  /** The same with the extra data that version 3 asks for; what is there stays. */
  public SnapshotEntry completed(long diskBytes) {
    if (extraData.remaining() >= EXTRA_BYTES_V3) {
      return this;
    }
    ByteBuffer extra = ByteBuffer.allocate(EXTRA_BYTES_V3);
    extra.putLong(vmStateBytes()).putLong(diskBytes).flip();
    return new SnapshotEntry(
        l1Offset,
        l1Entries,
        takenSeconds,
        takenNanos,
        vmClockNanos,
        vmStateBytes32,
        extra,
        id,
        name);
  }

  /** The id, made printable. */
  public String idText() {
    return Names.printable(id);
  }

  /** The name, made printable. */
  public String nameText() {
    return Names.printable(name);
  }

  /** Bytes of machine state, unsigned. */
  public long vmStateBytes() {
    return extraData.remaining() >= 8 ? extraData.getLong(0) : vmStateBytes32;
  }

  /** The disk's size when the snapshot was taken; older images don't say. */
  public OptionalLong virtualBytes() {
    return extraData.remaining() >= EXTRA_BYTES_V3
        ? OptionalLong.of(extraData.getLong(8))
        : OptionalLong.empty();
  }

  /** Whether the entry names more L1 entries than a table may have. */
  public boolean l1TooLong() {
    return l1Entries > HeaderRules.L1_ENTRIES_MAX;
  }

  /** Throws when the L1 table that the entry names can't be one of that image. */
  public void requireTable(String fileName, int index, int clusterBytes, long fileBytes)
      throws CorruptImageException {
    if (l1TooLong()) {
      throw new CorruptImageException(
          String.format(
              "%s: snapshot %d has %d L1 entries, expected at most %d",
              fileName, index, l1Entries, HeaderRules.L1_ENTRIES_MAX));
    }
    if (l1Entries > 0) {
      HeaderRules.checkTable(
          clusterBytes,
          fileName,
          "snapshot " + index + ": L1 offset",
          l1Offset,
          l1Entries * Long.BYTES,
          fileBytes);
    }
  }
}
