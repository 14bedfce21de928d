package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** Reads the first cluster; {@link HeaderRules} then judges what the fields say. */
final class HeaderParser {
  private HeaderParser() {}

  /** The whole buffer, counted from 0; the caller's position and order stay. */
  static ByteBuffer bigEndian(ByteBuffer bytes) {
    return bytes.slice().order(ByteOrder.BIG_ENDIAN);
  }

  static int clusterBits(String fileName, ByteBuffer start)
      throws CorruptImageException, UnsupportedImageException {
    ByteBuffer header = bigEndian(start);
    if (!Header.hasMagic(header)) {
      throw new CorruptImageException(
          fileName + ": is not a qcow2 image: it does not begin with \"QFI\\xfb\"");
    }
    if (header.limit() < HeaderLayout.V2_BYTES) {
      throw new CorruptImageException(
          String.format("%s: ends after %d bytes, inside the header", fileName, header.limit()));
    }
    int version = header.getInt(HeaderLayout.VERSION_AT);
    if (version != 2 && version != 3) {
      throw new UnsupportedImageException(
          String.format(
              "%s: header field version is %s, expected 2 or 3",
              fileName, Integer.toUnsignedString(version)));
    }
    long clusterBits = unsigned(header, HeaderLayout.CLUSTER_BITS_AT);
    if (clusterBits < HeaderRules.CLUSTER_BITS_MIN || clusterBits > HeaderRules.CLUSTER_BITS_MAX) {
      throw HeaderRules.corrupt(
          fileName,
          "cluster_bits",
          clusterBits,
          HeaderRules.CLUSTER_BITS_MIN + " to " + HeaderRules.CLUSTER_BITS_MAX);
    }
    return (int) clusterBits;
  }

  static Header parse(String fileName, ByteBuffer firstCluster)
      throws CorruptImageException, UnsupportedImageException {
    int clusterBits = clusterBits(fileName, firstCluster);
    int clusterBytes = 1 << clusterBits;
    if (firstCluster.remaining() < clusterBytes) {
      throw new CorruptImageException(
          String.format(
              "%s: ends after %d bytes, inside its first cluster of %d bytes",
              fileName, firstCluster.remaining(), clusterBytes));
    }
    ByteBuffer in = bigEndian(firstCluster).slice(0, clusterBytes);
    HeaderBuilder header =
        new HeaderBuilder(in.getInt(HeaderLayout.VERSION_AT), clusterBits)
            .virtualBytes(in.getLong(HeaderLayout.VIRTUAL_BYTES_AT))
            .cryptMethod(in.getInt(HeaderLayout.CRYPT_METHOD_AT))
            .l1(
                in.getLong(HeaderLayout.L1_OFFSET_AT),
                count(
                    fileName,
                    in,
                    HeaderLayout.L1_ENTRIES_AT,
                    "l1_size",
                    HeaderRules.L1_ENTRIES_MAX))
            .refcountTable(
                in.getLong(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT),
                count(
                    fileName,
                    in,
                    HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT,
                    "refcount_table_clusters",
                    HeaderRules.REFCOUNT_TABLE_BYTES_MAX >> clusterBits))
            .snapshots(
                in.getLong(HeaderLayout.SNAPSHOTS_OFFSET_AT),
                count(
                    fileName,
                    in,
                    HeaderLayout.SNAPSHOT_COUNT_AT,
                    "nb_snapshots",
                    HeaderRules.SNAPSHOTS_MAX));
    int headerBytes = HeaderLayout.V2_BYTES;
    if (in.getInt(HeaderLayout.VERSION_AT) != 2) {
      headerBytes = parseVersion3(fileName, in, header);
    }
    int backingOffset = backingOffset(fileName, in);
    header.extensions(
        parseExtensions(
            fileName, in, headerBytes, backingOffset == 0 ? in.limit() : backingOffset));
    if (backingOffset != 0) {
      header.backingFile(parseBackingFile(fileName, in, headerBytes, backingOffset));
    }
    return header.build();
  }

  private static int parseVersion3(String fileName, ByteBuffer in, HeaderBuilder header)
      throws CorruptImageException {
    long headerBytes = unsigned(in, HeaderLayout.HEADER_BYTES_AT);
    if (headerBytes < HeaderLayout.V3_BYTES_MIN
        || headerBytes > in.limit()
        || headerBytes % 8 != 0) {
      throw HeaderRules.corrupt(
          fileName,
          "header_length",
          headerBytes,
          "a multiple of 8 from " + HeaderLayout.V3_BYTES_MIN + " to " + in.limit());
    }
    header
        .incompatibleFeatures(in.getLong(HeaderLayout.INCOMPATIBLE_AT))
        .compatibleFeatures(in.getLong(HeaderLayout.COMPATIBLE_AT))
        .autoclearFeatures(in.getLong(HeaderLayout.AUTOCLEAR_AT))
        .refcountOrder(
            count(
                fileName,
                in,
                HeaderLayout.REFCOUNT_ORDER_AT,
                "refcount_order",
                HeaderRules.REFCOUNT_ORDER_MAX));
    int tailAt = (int) Math.min(headerBytes, HeaderLayout.TAIL_AT);
    header.tail((int) headerBytes, in.slice(tailAt, (int) headerBytes - tailAt));
    if (headerBytes > HeaderLayout.COMPRESSION_TYPE_AT) {
      header.compressionType(Byte.toUnsignedInt(in.get(HeaderLayout.COMPRESSION_TYPE_AT)));
    }
    return (int) headerBytes;
  }

  private static List<HeaderExtension> parseExtensions(
      String fileName, ByteBuffer in, int from, int end) throws CorruptImageException {
    List<HeaderExtension> extensions = new ArrayList<>();
    Set<Integer> knownTypes = new HashSet<>();
    int at = from;
    while (at < end) {
      if (end - at < HeaderExtension.PREFIX_BYTES) {
        throw new CorruptImageException(
            String.format(
                "%s: header extension at 0x%x runs past the extension area's end, 0x%x",
                fileName, at, end));
      }
      int type = in.getInt(at);
      if (type == HeaderExtension.END) {
        break;
      }
      long dataBytes = unsigned(in, at + 4);
      at += HeaderExtension.PREFIX_BYTES;
      if (dataBytes > end - at) {
        throw new CorruptImageException(
            String.format(
                "%s: header extension 0x%08x has a length of %d, expected at most %d",
                fileName, type, dataBytes, end - at));
      }
      HeaderExtension extension = new HeaderExtension(type, in.slice(at, (int) dataBytes));
      if (extension.known() && !knownTypes.add(type)) {
        throw new CorruptImageException(
            String.format("%s: header extension 0x%08x is there twice", fileName, type));
      }
      extensions.add(extension);
      if (extensions.size() > HeaderRules.EXTENSIONS_MAX) {
        throw new CorruptImageException(
            String.format(
                "%s: has more than %d header extensions", fileName, HeaderRules.EXTENSIONS_MAX));
      }
      at += (int) ((dataBytes + 7) & ~7L);
    }
    return extensions;
  }

  private static int backingOffset(String fileName, ByteBuffer in) throws CorruptImageException {
    long offset = in.getLong(HeaderLayout.BACKING_OFFSET_AT);
    if (offset < 0 || offset > in.limit()) {
      throw HeaderRules.corruptOffset(
          fileName, "backing_file_offset", offset, "a place in the first cluster");
    }
    return (int) offset;
  }

  /**
   * The name, or null: an offset with a length of 0 means that there is none, as it does to QEMU.
   */
  private static @Nullable String parseBackingFile(
      String fileName, ByteBuffer in, int headerBytes, int offset)
      throws CorruptImageException, UnsupportedImageException {
    long bytes = unsigned(in, HeaderLayout.BACKING_BYTES_AT);
    if (bytes == 0) {
      return null;
    }
    if (offset < headerBytes) {
      throw HeaderRules.corruptOffset(
          fileName, "backing_file_offset", offset, "a place after the header");
    }
    int bytesMax = Math.min(HeaderRules.BACKING_NAME_BYTES_MAX, in.limit() - offset);
    if (bytes > bytesMax) {
      throw HeaderRules.corrupt(fileName, "backing_file_size", bytes, "at most " + bytesMax);
    }
    String name = Names.exact(in.slice(offset, (int) bytes));
    if (name == null) {
      throw new UnsupportedImageException(fileName + ": the backing file's name is not UTF-8");
    }
    return name.isEmpty() ? null : name;
  }

  private static int count(String fileName, ByteBuffer in, int at, String field, int max)
      throws CorruptImageException {
    long value = unsigned(in, at);
    if (value > max) {
      throw HeaderRules.corrupt(fileName, field, value, "at most " + max);
    }
    return (int) value;
  }

  private static long unsigned(ByteBuffer in, int at) {
    return Integer.toUnsignedLong(in.getInt(at));
  }
}
