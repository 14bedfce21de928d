package io.qnbd.image.oracle;

import com.github.luben.zstd.Zstd;
import io.qnbd.image.io.MemoryStorage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;
import org.jspecify.annotations.Nullable;

/**
 * A qcow2 image taken apart byte by byte: reads the active disk and the internal snapshots, checks
 * the refcounts, and offers the few edits that {@link SnapshotMaker} and {@link ImageMaker} need.
 *
 * <p>It sees the file as it was when it was made, refcounts and tables of its own edits excepted.
 * Not thread-safe.
 */
public final class RawQcow2 {
  static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;
  static final long COPIED = 1L << 63;
  static final long COMPRESSED = 1L << 62;
  static final long ZERO = 1;
  private static final long RESERVED_L1 = 0x7f00_0000_0000_01ffL;
  private static final long RESERVED_L2 = 0x3f00_0000_0000_01feL;
  static final long EXTENDED_L2 = 1 << 4;
  private static final int SUBCLUSTERS = 32;
  private static final int MAGIC = 0x514649fb;

  /** An internal snapshot: its L1 table and the size of the disk when it was taken. */
  record Snapshot(String name, long l1Offset, int l1Entries, long virtualBytes) {}

  /** What a check found. Dirty images have no refcounts to speak of, so only their tables count. */
  public record Findings(List<String> corruptions, long leaks) {
    public boolean clean() {
      return corruptions.isEmpty() && leaks == 0;
    }
  }

  final MemoryStorage file;
  final int version;
  final int clusterBytes;
  final int refcountBits;
  final long virtualBytes;
  final boolean dirty;
  final boolean markedCorrupt;
  final boolean extendedL2;
  final long l1Offset;
  final int l1Entries;
  final long refcountTableOffset;
  final int refcountTableClusters;
  final long snapshotTableOffset;
  final List<Snapshot> snapshots = new ArrayList<>();
  private final int clusterBits;
  private final boolean zstd;
  private final long[] refcountTable;
  private final Map<Integer, byte[]> refcountBlocks = new HashMap<>();

  /** Where the bytes of plain clusters come from. */
  @FunctionalInterface
  public interface Data {
    byte[] read(long hostOffset, int bytes) throws IOException;
  }

  private final Data data;

  /** Whether guest clusters are in another file, where they are not counted. */
  final boolean hasDataFile;

  /** Where the encryption header is, and how long; both 0 without one. */
  final long encryptionOffset;

  final long encryptionBytes;

  public RawQcow2(MemoryStorage file) {
    this(file, file::bytes);
  }

  /** The same with the guest's data from somewhere else, by its host offset. */
  public RawQcow2(MemoryStorage file, Data data) {
    this.file = file;
    this.data = data;
    ByteBuffer header = ByteBuffer.wrap(file.bytes(0, 112));
    if (header.getInt(0) != MAGIC) {
      throw new AssertionError("no qcow2 magic");
    }
    version = header.getInt(4);
    clusterBits = header.getInt(20);
    clusterBytes = 1 << clusterBits;
    virtualBytes = header.getLong(24);
    l1Entries = header.getInt(36);
    l1Offset = header.getLong(40);
    refcountTableOffset = header.getLong(48);
    refcountTableClusters = header.getInt(56);
    snapshotTableOffset = header.getLong(64);
    dirty = version >= 3 && (header.getLong(72) & 1) != 0;
    markedCorrupt = version >= 3 && (header.getLong(72) & 2) != 0;
    extendedL2 = version >= 3 && (header.getLong(72) & EXTENDED_L2) != 0;
    zstd = version >= 3 && (header.getLong(72) & 8) != 0 && header.get(104) == 1;
    hasDataFile = version >= 3 && (header.getLong(72) & 4) != 0;
    ByteBuffer encryption = extension(header, 0x0537be77);
    encryptionOffset = encryption.remaining() == 0 ? 0 : encryption.getLong(0);
    encryptionBytes = encryption.remaining() == 0 ? 0 : encryption.getLong(8);
    refcountBits = version >= 3 ? 1 << header.getInt(96) : 16;
    refcountTable = longs(refcountTableOffset, refcountTableClusters * clusterBytes / 8);
    readSnapshots(header.getInt(60));
  }

  /** The data of a header extension; nothing if there is no such. */
  private ByteBuffer extension(ByteBuffer header, int type) {
    int at = version >= 3 ? header.getInt(100) : 72;
    ByteBuffer cluster = ByteBuffer.wrap(file.bytes(0, 1 << header.getInt(20)));
    while (at + 8 <= cluster.limit() && cluster.getInt(at) != 0) {
      int bytes = cluster.getInt(at + 4);
      if (cluster.getInt(at) == type) {
        return cluster.slice(at + 8, bytes);
      }
      at += 8 + ((bytes + 7) & ~7);
    }
    return ByteBuffer.allocate(0);
  }

  /** Whether the header says that refcounts and COPIED flags may be wrong. */
  public boolean dirty() {
    return dirty;
  }

  public int version() {
    return version;
  }

  public List<String> snapshotNames() {
    return snapshots.stream().map(Snapshot::name).toList();
  }

  public int snapshotCount() {
    return snapshots.size();
  }

  /** Where in the file the guest's bytes at {@code offset} are; -1 where it has none of its own. */
  public long hostOffset(long offset) {
    long[] place = l2Place(offset);
    if (place.length == 0) {
      return -1;
    }
    long entry = longs(place[0], 1)[0];
    long bitmap = extendedL2 ? longs(place[0] + 8, 1)[0] : 0;
    int unit = (int) (offset & (clusterBytes - 1)) / unitBytes();
    boolean here = (entry & COMPRESSED) == 0 && kind(entry, bitmap, unit) == Kind.DATA;
    return here ? (entry & OFFSET_MASK) + (offset & (clusterBytes - 1)) : -1;
  }

  /** What the tables say of a cluster or, where it has those, of a subcluster. */
  public enum Kind {
    DATA,
    ZEROES,
    ALLOCATED_ZEROES,
    UNALLOCATED
  }

  /** What the active disk's tables say of each {@link #unitBytes}, from the first on. */
  public Kind[] kinds() {
    int perCluster = clusterBytes / unitBytes();
    Kind[] kinds = new Kind[(int) ((virtualBytes + unitBytes() - 1) / unitBytes())];
    long[] l1 = l1();
    for (int unit = 0; unit < kinds.length; unit++) {
      int cluster = unit / perCluster;
      long table = l1[cluster / l2Entries()] & OFFSET_MASK;
      kinds[unit] = Kind.UNALLOCATED;
      if (table != 0) {
        long[] words = longs(l2EntryAt(table, cluster % l2Entries()), l2EntryBytes() / 8);
        kinds[unit] = kind(words[0], extendedL2 ? words[1] : 0, unit % perCluster);
      }
    }
    return kinds;
  }

  /** The unit in which the tables say where bytes are: a cluster, or a subcluster. */
  public int unitBytes() {
    return extendedL2 ? clusterBytes / SUBCLUSTERS : clusterBytes;
  }

  private Kind kind(long entry, long bitmap, int unit) {
    if ((entry & COMPRESSED) != 0) {
      return Kind.DATA;
    }
    boolean allocated = (entry & OFFSET_MASK) != 0;
    if (extendedL2) {
      if ((bitmap >>> (SUBCLUSTERS + unit) & 1) != 0) {
        return allocated ? Kind.ALLOCATED_ZEROES : Kind.ZEROES;
      }
      return (bitmap >>> unit & 1) != 0 ? Kind.DATA : Kind.UNALLOCATED;
    }
    if ((entry & ZERO) != 0 && version >= 3) {
      return allocated ? Kind.ALLOCATED_ZEROES : Kind.ZEROES;
    }
    return allocated ? Kind.DATA : Kind.UNALLOCATED;
  }

  public int clusterBytes() {
    return clusterBytes;
  }

  /** Where in the file the L2 entry for the guest's {@code offset} is; -1 without a table. */
  public long l2EntryOffset(long offset) {
    long[] place = l2Place(offset);
    return place.length == 0 ? -1 : place[0];
  }

  private long[] l2Place(long offset) {
    long cluster = offset >>> clusterBits;
    long table = l1()[(int) (cluster / l2Entries())] & OFFSET_MASK;
    return table == 0 ? new long[0] : new long[] {l2EntryAt(table, (int) (cluster % l2Entries()))};
  }

  /** The active disk's bytes; what is not in the image comes from {@code backing}, then zeroes. */
  public byte[] disk(byte @Nullable [] backing) {
    return disk(l1(), virtualBytes, backing);
  }

  /** The bytes of the disk as an internal snapshot keeps them. */
  public byte[] snapshotDisk(int index, byte @Nullable [] backing) {
    Snapshot snapshot = snapshots.get(index);
    return disk(longs(snapshot.l1Offset(), snapshot.l1Entries()), snapshot.virtualBytes(), backing);
  }

  /** Counts every reference in the image and compares with the refcounts. */
  public Findings check() {
    return new ReferenceCount(this, false).check();
  }

  /**
   * The same for a version 2 image that may have been cut inside an operation on its snapshots. It
   * has no dirty bit, so of a cluster with exactly one reference the COPIED flag and the count may
   * have reached the disk one without the other:
   *
   * <ul>
   *   <li>flag set, count 2: the count is too high by a leak, and writing in place is right;
   *   <li>flag clear, count 1: the cluster is copied once without need.
   * </ul>
   */
  public Findings checkAllowingStaleFlags() {
    return new ReferenceCount(this, true).check();
  }

  long[] l1() {
    return longs(l1Offset, l1Entries);
  }

  long[] longs(long at, int count) {
    long[] values = new long[count];
    ByteBuffer.wrap(file.bytes(at, count * 8)).asLongBuffer().get(values);
    return values;
  }

  long[] refcountTable() {
    return refcountTable;
  }

  int refcountsPerBlock() {
    return clusterBytes * 8 / refcountBits;
  }

  int l2EntryBytes() {
    return extendedL2 ? 16 : 8;
  }

  int l2Entries() {
    return clusterBytes / l2EntryBytes();
  }

  /** Where in the file an L2 table's entry is. */
  long l2EntryAt(long table, int index) {
    return table + (long) index * l2EntryBytes();
  }

  /** The entries of an L2 table, of extended ones the first halves. */
  long[] l2(long table) {
    return everySecond(table, 0);
  }

  /** The second halves of the entries of an L2 table; zeroes where there are none. */
  long[] bitmaps(long table) {
    return extendedL2 ? everySecond(table, 1) : new long[l2Entries()];
  }

  private long[] everySecond(long table, int word) {
    long[] words = longs(table, clusterBytes / 8);
    long[] result = new long[l2Entries()];
    for (int i = 0; i < result.length; i++) {
      result[i] = words[i * (l2EntryBytes() / 8) + word];
    }
    return result;
  }

  long clusters(long bytes) {
    return (bytes + clusterBytes - 1) >>> clusterBits;
  }

  /** The host cluster after the last for which there is a refcount. */
  long countableClusters() {
    int blocks = refcountTable.length;
    while (blocks > 0 && refcountTable[blocks - 1] == 0) {
      blocks--;
    }
    return (long) blocks * refcountsPerBlock();
  }

  /** The on-disk refcount of a host cluster. */
  long refcount(long cluster) {
    int block = (int) (cluster / refcountsPerBlock());
    if (block >= refcountTable.length || (refcountTable[block] & OFFSET_MASK) == 0) {
      return 0;
    }
    byte[] bytes = refcountBlock(block);
    int index = (int) (cluster % refcountsPerBlock());
    if (refcountBits < 8) {
      int bit = index * refcountBits;
      return (bytes[bit / 8] >> (bit % 8)) & ((1 << refcountBits) - 1);
    }
    long value = 0;
    for (int i = 0; i < refcountBits / 8; i++) {
      value = value << 8 | (bytes[index * (refcountBits / 8) + i] & 0xff);
    }
    return value;
  }

  private byte[] refcountBlock(int block) {
    return refcountBlocks.computeIfAbsent(
        block, key -> file.bytes(refcountTable[key] & OFFSET_MASK, clusterBytes));
  }

  /** Writes a refcount, with a new block at the end of the file where there is none. */
  void setRefcount(long cluster, long value) throws IOException {
    int block = (int) (cluster / refcountsPerBlock());
    if (block >= refcountTable.length) {
      throw new AssertionError("the refcount table is too small for cluster " + cluster);
    }
    if ((refcountTable[block] & OFFSET_MASK) == 0) {
      long at = append(1);
      refcountTable[block] = at;
      putLong(refcountTableOffset + 8L * block, at);
      setRefcount(at / clusterBytes, 1);
    }
    byte[] bytes = refcountBlock(block);
    int index = (int) (cluster % refcountsPerBlock());
    if (refcountBits < 8) {
      int bit = index * refcountBits;
      int mask = ((1 << refcountBits) - 1) << (bit % 8);
      bytes[bit / 8] = (byte) ((bytes[bit / 8] & ~mask) | (int) value << (bit % 8));
    } else {
      for (int i = 0; i < refcountBits / 8; i++) {
        bytes[(index + 1) * (refcountBits / 8) - 1 - i] = (byte) (value >>> (8 * i));
      }
    }
    file.write(refcountTable[block] & OFFSET_MASK, ByteBuffer.wrap(bytes));
  }

  /** Extends the file by whole clusters that read as zeroes and have no refcount yet. */
  long append(int count) {
    long at = clusters(file.length()) * clusterBytes;
    file.setLength(at + (long) count * clusterBytes);
    return at;
  }

  void putLong(long at, long value) throws IOException {
    file.write(at, ByteBuffer.allocate(8).putLong(0, value));
  }

  /** First byte and byte after the last of what a compressed entry takes in the file. */
  long[] compressedRange(long entry) {
    int x = 62 - (clusterBits - 8);
    long offset = entry & ((1L << x) - 1);
    long sectors = ((entry >>> x) & ((1L << (clusterBits - 8)) - 1)) + 1;
    return new long[] {offset, (offset & ~511L) + sectors * 512};
  }

  private void readSnapshots(int count) {
    long at = snapshotTableOffset;
    for (int i = 0; i < count; i++) {
      ByteBuffer entry = ByteBuffer.wrap(file.bytes(at, 40));
      int idBytes = entry.getShort(12);
      int nameBytes = entry.getShort(14);
      int extraBytes = entry.getInt(36);
      ByteBuffer extra = ByteBuffer.wrap(file.bytes(at + 40, extraBytes));
      String name =
          new String(file.bytes(at + 40 + extraBytes + idBytes, nameBytes), StandardCharsets.UTF_8);
      long size = extraBytes >= 16 ? extra.getLong(8) : virtualBytes;
      snapshots.add(new Snapshot(name, entry.getLong(0), entry.getInt(8), size));
      at += (40 + extraBytes + idBytes + nameBytes + 7) & ~7;
    }
  }

  /** Length in bytes of the snapshot table. */
  long snapshotTableBytes() {
    long at = snapshotTableOffset;
    for (int i = 0; i < snapshots.size(); i++) {
      ByteBuffer entry = ByteBuffer.wrap(file.bytes(at, 40));
      at += (40 + entry.getInt(36) + entry.getShort(12) + entry.getShort(14) + 7) & ~7;
    }
    return at - snapshotTableOffset;
  }

  private byte[] disk(long[] l1, long bytes, byte @Nullable [] backing) {
    byte[] disk = backing == null ? new byte[(int) bytes] : Arrays.copyOf(backing, (int) bytes);
    for (int i = 0; i < l1.length; i++) {
      if ((l1[i] & OFFSET_MASK) == 0) {
        continue;
      }
      long[] l2 = l2(l1[i] & OFFSET_MASK);
      long[] bitmaps = bitmaps(l1[i] & OFFSET_MASK);
      for (int j = 0; j < l2.length; j++) {
        long at = ((long) i * l2.length + j) * clusterBytes;
        if (at >= bytes) {
          break;
        }
        int count = (int) Math.min(clusterBytes, bytes - at);
        if (extendedL2 && (l2[j] & COMPRESSED) == 0) {
          putSubclusters(l2[j], bitmaps[j], disk, (int) at, count);
        } else if ((hasDataFile ? l2[j] : l2[j] & ~COPIED) != 0) {
          System.arraycopy(cluster(l2[j]), 0, disk, (int) at, count);
        }
      }
    }
    return disk;
  }

  private void putSubclusters(long entry, long bitmap, byte[] disk, int at, int bytes) {
    for (int unit = 0; unit * unitBytes() < bytes; unit++) {
      int in = unit * unitBytes();
      int count = Math.min(unitBytes(), bytes - in);
      switch (kind(entry, bitmap, unit)) {
        case DATA -> {
          byte[] found = dataAt((entry & OFFSET_MASK) + in, unitBytes());
          System.arraycopy(found, 0, disk, at + in, count);
        }
        case ZEROES, ALLOCATED_ZEROES -> Arrays.fill(disk, at + in, at + in + count, (byte) 0);
        case UNALLOCATED -> {}
      }
    }
  }

  private byte[] cluster(long entry) {
    if ((entry & COMPRESSED) != 0) {
      return inflated(entry);
    }
    if ((entry & ZERO) != 0 && version >= 3) {
      return new byte[clusterBytes];
    }
    return dataAt(entry & OFFSET_MASK, clusterBytes);
  }

  private byte[] dataAt(long hostOffset, int bytes) {
    try {
      return data.read(hostOffset, bytes);
    } catch (IOException e) {
      throw new AssertionError("reading data", e);
    }
  }

  private byte[] inflated(long entry) {
    long[] range = compressedRange(entry);
    byte[] result = new byte[clusterBytes];
    if (zstd) {
      byte[] stream = file.bytes(range[0], (int) (range[1] - range[0]));
      int frame = (int) Zstd.findFrameCompressedSize(stream);
      if (Zstd.decompress(result, Arrays.copyOf(stream, frame)) != clusterBytes) {
        throw new AssertionError("compressed cluster at " + range[0]);
      }
      return result;
    }
    try (Inflater inflater = new Inflater(true)) {
      inflater.setInput(file.bytes(range[0], (int) (range[1] - range[0])));
      int done = inflater.inflate(result);
      if (done != clusterBytes) {
        throw new AssertionError("compressed cluster of " + done + " bytes at " + range[0]);
      }
    } catch (DataFormatException e) {
      throw new AssertionError("compressed cluster at " + range[0], e);
    }
    return result;
  }

  static boolean reservedL1(long entry) {
    return (entry & RESERVED_L1) != 0;
  }

  boolean reservedL2(long entry) {
    long reserved = extendedL2 ? RESERVED_L2 | ZERO : RESERVED_L2;
    return (entry & COMPRESSED) == 0 && (entry & reserved) != 0;
  }

  /** What is wrong with the second half of an extended entry; null if nothing is. */
  @Nullable String wrongBitmap(long entry, long bitmap) {
    if ((entry & COMPRESSED) != 0) {
      return bitmap == 0 ? null : "subclusters of a compressed cluster";
    }
    if ((bitmap >>> SUBCLUSTERS & bitmap) != 0) {
      return "a subcluster is both allocated and zero";
    }
    boolean lost = (int) bitmap != 0 && (entry & OFFSET_MASK) == 0;
    return lost ? "subclusters without a cluster" : null;
  }
}
