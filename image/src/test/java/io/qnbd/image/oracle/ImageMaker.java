package io.qnbd.image.oracle;

import io.qnbd.image.Passphrase;
import io.qnbd.image.crypt.LuksMaker;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderBuilder;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.UnaryOperator;
import java.util.zip.Deflater;
import org.jspecify.annotations.Nullable;

/**
 * Makes small qcow2 images byte by byte, so that tests of the engine need nothing but the engine.
 */
public final class ImageMaker {
  private static final int HEADER_V2_BYTES = 72;
  private static final int HEADER_V3_BYTES = 104;
  private static final int BACKING_FORMAT = 0xe2792aca;

  /** Opens images that {@link #encrypt} has made. */
  public static final Passphrase PASSPHRASE =
      Passphrase.of("horse battery".getBytes(StandardCharsets.UTF_8));

  /** Up to the key material of the second slot, which is not in use: an image of small size. */
  private static final int LUKS_BYTES = 4096 + 63 * 4096;

  private static @Nullable ByteBuffer luks;

  private ImageMaker() {}

  /**
   * Makes an image's data encrypted: what it has already is read as if it were. It must name no
   * backing file whose name would be in the way.
   */
  public static void encrypt(MemoryStorage file) throws IOException {
    encrypt(file, LUKS_BYTES);
  }

  /** The same with room for the key material of all slots. */
  public static void encryptWithAllSlots(MemoryStorage file) throws IOException {
    encrypt(file, LuksMaker.AREA_BYTES);
  }

  private static void encrypt(MemoryStorage file, int areaBytes) throws IOException {
    RawQcow2 image = new RawQcow2(file);
    int clusters = (int) image.clusters(areaBytes);
    long at = counted(image, clusters);
    ByteBuffer area = luks == null ? LuksMaker.make(PASSPHRASE.bytes(), 1) : luks;
    luks = area;
    file.write(at, area.slice(0, areaBytes));
    ByteBuffer pointer = ByteBuffer.allocate(16).putLong(at).putLong(areaBytes).flip();
    HeaderExtension extension = new HeaderExtension(HeaderExtension.ENCRYPTION_HEADER, pointer);
    rewriteHeader(file, header -> header.cryptMethod(Header.CRYPT_LUKS), extension);
  }

  /** Makes an image one whose data is in a file of its own. It must have none yet. */
  public static void moveData(MemoryStorage file, boolean raw) throws IOException {
    rewriteHeader(
        file,
        header ->
            header
                .incompatibleFeatures(FeatureBits.DATA_FILE)
                .autoclearFeatures(raw ? FeatureBits.RAW_DATA_FILE : 0),
        HeaderExtension.ofText(HeaderExtension.DATA_FILE, "test.data"));
    RawQcow2 image = new RawQcow2(file);
    long[] l1 = image.l1();
    for (int i = 0; i < l1.length; i++) {
      long table = l1[i] & RawQcow2.OFFSET_MASK;
      for (int j = 0; table != 0 && j < image.l2Entries(); j++) {
        long entry = image.longs(table + 8L * j, 1)[0];
        long guest = ((long) i * image.l2Entries() + j) * image.clusterBytes;
        if (entry != 0) {
          image.setRefcount((entry & RawQcow2.OFFSET_MASK) / image.clusterBytes, 0);
          image.putLong(table + 8L * j, guest | RawQcow2.COPIED);
        }
      }
    }
  }

  private static void rewriteHeader(
      MemoryStorage file, UnaryOperator<HeaderBuilder> change, HeaderExtension extension)
      throws IOException {
    Header header = ImageFile.of(file).readHeader();
    List<HeaderExtension> extensions = new ArrayList<>(header.extensions());
    extensions.add(extension);
    Header changed = change.apply(header.toBuilder()).extensions(extensions).build();
    file.write(0, changed.encode());
  }

  /** An empty image with standard L2 entries; see the other one. */
  public static MemoryStorage empty(
      int version,
      int clusterBytes,
      int refcountBits,
      long virtualBytes,
      int refcountTableClusters,
      @Nullable String backing,
      @Nullable String backingFormat)
      throws IOException {
    return empty(
        version,
        false,
        clusterBytes,
        refcountBits,
        virtualBytes,
        refcountTableClusters,
        backing,
        backingFormat);
  }

  /**
   * An empty image.
   *
   * @param extendedL2 whether clusters have subclusters; version 3 only
   * @param refcountTableClusters one makes images with small clusters grow their table soon
   * @param backing the name of the backing file, or null
   * @param backingFormat the backing file's format, or null
   */
  public static MemoryStorage empty(
      int version,
      boolean extendedL2,
      int clusterBytes,
      int refcountBits,
      long virtualBytes,
      int refcountTableClusters,
      @Nullable String backing,
      @Nullable String backingFormat)
      throws IOException {
    long bytesPerL2 = (long) clusterBytes / (extendedL2 ? 16 : 8) * clusterBytes;
    int l1Entries = (int) ((virtualBytes + bytesPerL2 - 1) / bytesPerL2);
    int l1Clusters = Math.max(1, (l1Entries * 8 + clusterBytes - 1) / clusterBytes);
    ByteBuffer header = ByteBuffer.allocate(clusterBytes);
    header.putInt(0x514649fb).putInt(version).putLong(0).putInt(0);
    header.putInt(Integer.numberOfTrailingZeros(clusterBytes)).putLong(virtualBytes).putInt(0);
    header.putInt(l1Entries).putLong((1L + refcountTableClusters) * clusterBytes);
    header.putLong(clusterBytes).putInt(refcountTableClusters).putInt(0).putLong(0);
    if (version >= 3) {
      header.putLong(extendedL2 ? RawQcow2.EXTENDED_L2 : 0).putLong(0).putLong(0);
      header.putInt(Integer.numberOfTrailingZeros(refcountBits)).putInt(HEADER_V3_BYTES);
    }
    header.position(version >= 3 ? HEADER_V3_BYTES : HEADER_V2_BYTES);
    if (backingFormat != null) {
      byte[] name = backingFormat.getBytes(StandardCharsets.UTF_8);
      header.putInt(BACKING_FORMAT).putInt(name.length).put(name);
      header.position((header.position() + 7) & ~7);
    }
    header.putLong(0);
    if (backing != null) {
      byte[] name = backing.getBytes(StandardCharsets.UTF_8);
      header.putLong(8, header.position()).putInt(16, name.length).put(name);
    }
    MemoryStorage file = new MemoryStorage("test.qcow2");
    file.write(0, header.clear());
    file.setLength((1L + refcountTableClusters + l1Clusters) * clusterBytes);
    RawQcow2 image = new RawQcow2(file);
    for (int cluster = 0; cluster < 1 + refcountTableClusters + l1Clusters; cluster++) {
      image.setRefcount(cluster, 1);
    }
    return file;
  }

  /**
   * Gives every guest cluster of an empty image a host cluster of its own, unwritten, or as many as
   * fit into a file of {@code clustersMax}.
   */
  public static void preallocate(MemoryStorage file, long clustersMax) throws IOException {
    RawQcow2 image = new RawQcow2(file);
    long left = image.clusters(image.virtualBytes);
    for (int i = 0; i < image.l1Entries && left > 0; i++) {
      long table = counted(image, 1);
      image.putLong(image.l1Offset + 8L * i, table | RawQcow2.COPIED);
      for (int j = 0; j < image.l2Entries() && left > 0; j++, left--) {
        if (image.clusters(file.length()) >= clustersMax) {
          return;
        }
        image.putLong(image.l2EntryAt(table, j), counted(image, 1) | RawQcow2.COPIED);
      }
    }
  }

  /**
   * Puts compressed clusters with these contents into an empty image, packed so that neighbours
   * share host clusters and straddle their borders. Clusters that do not shrink are left out.
   */
  public static void compress(MemoryStorage file, byte[] disk) throws IOException {
    RawQcow2 image = new RawQcow2(file);
    int clusterBits = Integer.numberOfTrailingZeros(image.clusterBytes);
    long at = 0;
    long end = 0;
    for (int i = 0; i < image.l1Entries; i++) {
      long table = counted(image, 1);
      image.putLong(image.l1Offset + 8L * i, table | RawQcow2.COPIED);
      for (int j = 0; j < image.l2Entries(); j++) {
        long guest = ((long) i * image.l2Entries() + j) * image.clusterBytes;
        byte[] packed = deflated(disk, guest, image.clusterBytes);
        if (packed.length == 0) {
          continue;
        }
        if (at + packed.length > end) {
          long next = image.append(2);
          at = next == end ? at : next;
          end = next + 2L * image.clusterBytes;
        }
        long sectors = ((at + packed.length - 1) >> 9) - (at >> 9);
        image.putLong(
            image.l2EntryAt(table, j),
            RawQcow2.COMPRESSED | sectors << (62 - (clusterBits - 8)) | at);
        file.write(at, ByteBuffer.wrap(packed));
        long last = ((at >> 9) + sectors) * 512 / image.clusterBytes;
        for (long cluster = at / image.clusterBytes; cluster <= last; cluster++) {
          image.setRefcount(cluster, image.refcount(cluster) + 1);
        }
        at += packed.length;
      }
    }
  }

  /** Says in the header of an empty version 3 image without extensions that zstd compresses it. */
  public static void useZstd(MemoryStorage file) throws IOException {
    ByteBuffer bits = ByteBuffer.wrap(file.bytes(72, 8));
    file.write(72, ByteBuffer.allocate(8).putLong(0, bits.getLong(0) | 8));
    file.write(100, ByteBuffer.allocate(12).putInt(0, 112).put(4, (byte) 1));
  }

  private static byte[] deflated(byte[] disk, long at, int bytes) {
    if (at >= disk.length) {
      return new byte[0];
    }
    byte[] cluster = new byte[bytes];
    System.arraycopy(disk, (int) at, cluster, 0, (int) Math.min(bytes, disk.length - at));
    byte[] packed = new byte[bytes];
    try (Deflater deflater = new Deflater(Deflater.BEST_SPEED, true)) {
      deflater.setInput(cluster);
      deflater.finish();
      int count = deflater.deflate(packed);
      return deflater.finished() ? Arrays.copyOf(packed, count) : new byte[0];
    }
  }

  private static long counted(RawQcow2 image, int clusters) throws IOException {
    long at = image.append(clusters);
    for (int i = 0; i < clusters; i++) {
      image.setRefcount(at / image.clusterBytes + i, 1);
    }
    return at;
  }
}
