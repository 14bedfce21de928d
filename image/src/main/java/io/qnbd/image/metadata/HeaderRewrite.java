package io.qnbd.image.metadata;

import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * Replaces an image's header, with its extensions and the backing file's name, by another one. A
 * power cut leaves the old one or the new, whole.
 *
 * <p>A disk writes a sector whole or not at all, and the first sector has all the fields. Where
 * more than that sector differs, the change goes through a header that needs no other sector than
 * the first and one in which the backing file's name is parked:
 *
 * <pre>
 *   1. park    the new name at the end of the first cluster, where nothing is       sync
 *   2. bridge  a first sector with all new fields, with every extension but the
 *              names of the features, and with the parked name                      sync
 *   3. fill    the sectors behind the first as they are to be                       sync
 *   4. finish  the first sector as it is to be                                      sync
 * </pre>
 *
 * <p>Between 2 and 4 the image lacks the names of its features, which nobody needs to read it.
 */
public final class HeaderRewrite {
  private static final int SECTOR_BYTES = 512;

  private HeaderRewrite() {}

  /**
   * Replaces the header; durable when this returns.
   *
   * @throws UnsupportedImageException when the new one has no room, or no room for the bridge; the
   *     image is as it was
   */
  public static void write(Storage file, Header header) throws IOException {
    int clusterBytes = header.clusterBytes();
    if (header.encodedBytes() > clusterBytes) {
      throw new UnsupportedImageException(
          "%s: the header would take %d bytes, and the first cluster has %d"
              .formatted(file.name(), header.encodedBytes(), clusterBytes));
    }
    ByteBuffer old = ImageFile.of(file).read(0, clusterBytes);
    ByteBuffer replacement = header.encode();
    if (!sameBehindFirstSector(old, replacement)) {
      bridge(file, old, header, replacement);
    }
    file.write(0, replacement.slice(0, SECTOR_BYTES));
    file.sync();
  }

  private static boolean sameBehindFirstSector(ByteBuffer old, ByteBuffer replacement) {
    int rest = old.limit() - SECTOR_BYTES;
    return old.slice(SECTOR_BYTES, rest).equals(replacement.slice(SECTOR_BYTES, rest));
  }

  private static void bridge(Storage file, ByteBuffer old, Header header, ByteBuffer replacement)
      throws IOException {
    String name = header.backingFile();
    byte[] nameBytes = name == null ? new byte[0] : name.getBytes(StandardCharsets.UTF_8);
    int parked = (old.limit() - nameBytes.length) & -SECTOR_BYTES;
    int used = Math.max(usedEnd(old), header.encodedBytes() + Long.BYTES);
    ByteBuffer first = bridgeSector(file, header, nameBytes.length, parked);
    if (nameBytes.length > 0) {
      if (parked < used || parked < SECTOR_BYTES) {
        throw noRoom(file);
      }
      file.write(parked, ByteBuffer.wrap(nameBytes));
      file.sync();
    }
    file.write(0, first);
    file.sync();
    int fillEnd = nameBytes.length > 0 ? parked : replacement.limit();
    file.write(SECTOR_BYTES, replacement.slice(SECTOR_BYTES, fillEnd - SECTOR_BYTES));
    file.sync();
  }

  private static ByteBuffer bridgeSector(Storage file, Header header, int nameBytes, int parked)
      throws IOException {
    List<HeaderExtension> needed =
        header.extensions().stream()
            .filter(extension -> extension.type() != HeaderExtension.FEATURE_NAMES)
            .toList();
    Header bare = header.toBuilder().extensions(needed).backingFile(null).build();
    // Behind the last extension, padded, there must be room for the mark that ends them.
    if (bare.encodedBytes() + 2 * Long.BYTES > SECTOR_BYTES) {
      throw noRoom(file);
    }
    ByteBuffer sector = bare.encode().slice(0, SECTOR_BYTES);
    if (nameBytes > 0) {
      sector.putLong(HeaderLayout.BACKING_OFFSET_AT, parked);
      sector.putInt(HeaderLayout.BACKING_BYTES_AT, nameBytes);
    }
    return sector;
  }

  /** Where what the old header uses of its cluster ends. */
  private static int usedEnd(ByteBuffer old) {
    int nameEnd = 0;
    int areaEnd = old.limit();
    long nameAt = old.getLong(HeaderLayout.BACKING_OFFSET_AT);
    if (nameAt > 0 && nameAt < old.limit()) {
      nameEnd = (int) nameAt + old.getInt(HeaderLayout.BACKING_BYTES_AT);
      areaEnd = (int) nameAt;
    }
    int version = old.getInt(HeaderLayout.VERSION_AT);
    int at = version == 2 ? HeaderLayout.V2_BYTES : old.getInt(HeaderLayout.HEADER_BYTES_AT);
    while (areaEnd - at >= 2 * Integer.BYTES && old.getInt(at) != HeaderExtension.END) {
      int dataBytes = old.getInt(at + Integer.BYTES);
      at += 2 * Integer.BYTES + ((dataBytes + 7) & ~7);
    }
    return Math.max(nameEnd, at + Long.BYTES);
  }

  private static UnsupportedImageException noRoom(Storage file) {
    return new UnsupportedImageException(
        file.name()
            + ": the first cluster has no room to change the header in steps that a power cut"
            + " can't hurt: convert the image to one with larger clusters");
  }
}
