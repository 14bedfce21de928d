package io.qnbd.image.format;

import io.qnbd.image.CorruptImageException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * Writes the first cluster: header, extensions, end marker, backing file's name, zeroes. The end
 * marker is left out where there is no room for it, as the end of the area says the same; so what
 * was parsed always fits again.
 */
final class HeaderEncoder {
  private HeaderEncoder() {}

  static int bytes(Header header) {
    int bytes = header.headerBytes();
    for (HeaderExtension extension : header.extensions()) {
      bytes = Math.addExact(bytes, extension.paddedBytes());
    }
    if (!header.extensions().isEmpty()) {
      HeaderExtension last = header.extensions().getLast();
      bytes -= last.paddedBytes() - last.bytes();
    }
    return Math.addExact(bytes, backingName(header).length);
  }

  static ByteBuffer encode(Header header) {
    try {
      HeaderRules.check(header, "header to write", Long.MAX_VALUE);
    } catch (CorruptImageException e) {
      throw new AssertionError(e.getMessage(), e);
    }
    if (bytes(header) > header.clusterBytes()) {
      throw new AssertionError(
          String.format(
              "header to write takes %d bytes, the first cluster has %d",
              bytes(header), header.clusterBytes()));
    }
    ByteBuffer out = ByteBuffer.allocate(header.clusterBytes());
    putFields(header, out);
    if (header.version() != 2) {
      putVersion3Fields(header, out);
    }
    putExtensionsAndName(header, out);
    return out.clear();
  }

  private static void putFields(Header header, ByteBuffer out) {
    out.putInt(HeaderLayout.MAGIC_AT, HeaderLayout.MAGIC);
    out.putInt(HeaderLayout.VERSION_AT, header.version());
    out.putInt(HeaderLayout.CLUSTER_BITS_AT, header.clusterBits());
    out.putLong(HeaderLayout.VIRTUAL_BYTES_AT, header.virtualBytes());
    out.putInt(HeaderLayout.CRYPT_METHOD_AT, header.cryptMethod());
    out.putInt(HeaderLayout.L1_ENTRIES_AT, header.l1Entries());
    out.putLong(HeaderLayout.L1_OFFSET_AT, header.l1Offset());
    out.putLong(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT, header.refcountTableOffset());
    out.putInt(HeaderLayout.REFCOUNT_TABLE_CLUSTERS_AT, header.refcountTableClusters());
    out.putInt(HeaderLayout.SNAPSHOT_COUNT_AT, header.snapshotCount());
    out.putLong(HeaderLayout.SNAPSHOTS_OFFSET_AT, header.snapshotsOffset());
  }

  private static void putVersion3Fields(Header header, ByteBuffer out) {
    out.putLong(HeaderLayout.INCOMPATIBLE_AT, header.incompatibleFeatures());
    out.putLong(HeaderLayout.COMPATIBLE_AT, header.compatibleFeatures());
    out.putLong(HeaderLayout.AUTOCLEAR_AT, header.autoclearFeatures());
    out.putInt(HeaderLayout.REFCOUNT_ORDER_AT, header.refcountOrder());
    out.putInt(HeaderLayout.HEADER_BYTES_AT, header.headerBytes());
    if (header.headerBytes() > HeaderLayout.COMPRESSION_TYPE_AT) {
      out.put(HeaderLayout.COMPRESSION_TYPE_AT, (byte) header.compressionType());
      out.position(HeaderLayout.TAIL_AT).put(header.tail());
    }
  }

  private static void putExtensionsAndName(Header header, ByteBuffer out) {
    byte[] name = backingName(header);
    int areaEnd = out.limit() - name.length;
    out.position(header.headerBytes());
    for (HeaderExtension extension : header.extensions()) {
      int next = out.position() + extension.paddedBytes();
      out.putInt(extension.type()).putInt(extension.data().remaining()).put(extension.data());
      out.position(Math.min(next, areaEnd));
    }
    if (areaEnd - out.position() >= HeaderExtension.PREFIX_BYTES) {
      out.putInt(HeaderExtension.END).putInt(0);
    } else {
      out.position(areaEnd);
    }
    if (name.length > 0) {
      out.putLong(HeaderLayout.BACKING_OFFSET_AT, out.position());
      out.putInt(HeaderLayout.BACKING_BYTES_AT, name.length);
      out.put(name);
    }
  }

  private static byte[] backingName(Header header) {
    String name = header.backingFile();
    return name == null ? new byte[0] : name.getBytes(StandardCharsets.UTF_8);
  }
}
