package io.qnbd.image.check;

import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapTableEntry;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Counts what the extensions point to: persistent bitmaps and the encryption header.
 *
 * <p>Bitmaps count only while the autoclear bit says that they are consistent; else their clusters
 * are leaks, as QEMU has it too.
 *
 * <p>Owner: one check. Not thread-safe.
 */
final class ExtensionCheck {
  private final ImageFile file;
  private final Header header;
  private final Geometry geometry;
  private final Findings findings;
  private final References references;
  private final Fixes fixes;

  ExtensionCheck(
      ImageFile file, Header header, Findings findings, References references, Fixes fixes) {
    this.fixes = fixes;
    this.file = file;
    this.header = header;
    this.geometry = header.geometry();
    this.findings = findings;
    this.references = references;
  }

  void count() throws IOException {
    HeaderExtension encryption = header.extension(HeaderExtension.ENCRYPTION_HEADER);
    if (encryption != null) {
      countEncryptionHeader(encryption.data());
    }
    HeaderExtension bitmaps = header.extension(HeaderExtension.BITMAPS);
    boolean consistent = (header.autoclearFeatures() & FeatureBits.BITMAPS) != 0;
    if (bitmaps != null && consistent) {
      long before = findings.corruptions();
      countDirectory(bitmaps.data());
      if (findings.corruptions() != before) {
        fixes.forgetBitmaps();
      }
    }
  }

  private void countEncryptionHeader(ByteBuffer extension) throws IOException {
    if (extension.remaining() != 2 * Long.BYTES) {
      findings.corruption(
          "encryption header extension: %d bytes, expected 16", extension.remaining());
      return;
    }
    references.addAligned(
        "encryption header extension",
        extension.getLong(0),
        extension.getLong(Long.BYTES),
        ClusterUse.ENCRYPTION_HEADER,
        1);
  }

  private void countDirectory(ByteBuffer extension) throws IOException {
    if (extension.remaining() != BitmapsExtension.BYTES) {
      findings.corruption(
          "bitmaps extension: %d bytes, expected %d",
          extension.remaining(), BitmapsExtension.BYTES);
      return;
    }
    long bitmaps = Integer.toUnsignedLong(extension.getInt(0));
    long directoryBytes = extension.getLong(BitmapsExtension.DIRECTORY_BYTES_AT);
    long directoryAt = extension.getLong(BitmapsExtension.DIRECTORY_OFFSET_AT);
    if (bitmaps == 0
        || bitmaps > BitmapsExtension.BITMAPS_MAX
        || extension.getInt(BitmapsExtension.RESERVED_AT) != 0) {
      findings.corruption(
          "bitmaps extension: %d bitmaps, expected 1 to %d, then zeroes",
          bitmaps, BitmapsExtension.BITMAPS_MAX);
      return;
    }
    if (directoryBytes < 0 || directoryBytes > BitmapsExtension.DIRECTORY_BYTES_MAX) {
      findings.corruption(
          "bitmaps extension: a directory of %s bytes, expected at most %d",
          Long.toUnsignedString(directoryBytes), BitmapsExtension.DIRECTORY_BYTES_MAX);
      return;
    }
    References.Place place =
        references.addAligned(
            "bitmaps extension", directoryAt, directoryBytes, ClusterUse.BITMAP, 1);
    if (place == References.Place.GOOD) {
      countTables(file.read(directoryAt, (int) directoryBytes), bitmaps);
    }
  }

  private void countTables(ByteBuffer directory, long bitmaps) throws IOException {
    int at = 0;
    long found = 0;
    while (directory.limit() - at >= BitmapEntry.FIXED_BYTES) {
      String here = "bitmap " + found;
      long end = at + BitmapEntry.bytes(directory.slice(at, BitmapEntry.FIXED_BYTES));
      long entries = Integer.toUnsignedLong(directory.getInt(at + BitmapEntry.TABLE_ENTRIES_AT));
      if (end > directory.limit() || entries > BitmapEntry.TABLE_ENTRIES_MAX) {
        findings.corruption(
            "%s: an entry of %d bytes for a table of %d entries exceeds the directory or %d",
            here, end - at, entries, BitmapEntry.TABLE_ENTRIES_MAX);
        return;
      }
      countTable(here, directory.getLong(at), (int) entries);
      at = (int) end;
      found++;
    }
    if (found != bitmaps || at != directory.limit()) {
      findings.corruption(
          "bitmaps extension: the directory has %d bitmaps in %d bytes, expected %d in %d",
          found, at, bitmaps, directory.limit());
    }
  }

  private void countTable(String here, long at, int entries) throws IOException {
    long bytes = (long) entries * Long.BYTES;
    if (entries == 0
        || references.addAligned(here, at, bytes, ClusterUse.BITMAP, 1) != References.Place.GOOD) {
      return;
    }
    ByteBuffer part = ByteBuffer.allocate(geometry.clusterBytes());
    int entriesPerPart = part.capacity() / Long.BYTES;
    for (int index = 0; index < entries; index++) {
      if (index % entriesPerPart == 0) {
        file.read(at + (long) index * Long.BYTES, part);
      }
      countTableEntry(here, index, part.getLong(index % entriesPerPart * Long.BYTES));
    }
  }

  private void countTableEntry(String bitmap, int index, long entry) throws IOException {
    long at = BitmapTableEntry.dataOffset(entry);
    String here = bitmap + ", table entry " + index;
    if (BitmapTableEntry.reservedBits(entry) != 0) {
      findings.corruption("%s: 0x%016x has reserved bits set", here, entry);
    }
    if (at != 0) {
      references.addAligned(here, at, geometry.clusterBytes(), ClusterUse.BITMAP, 1);
    }
  }
}
