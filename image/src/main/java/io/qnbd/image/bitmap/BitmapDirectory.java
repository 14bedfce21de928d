package io.qnbd.image.bitmap;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Reads the directory of an image's bitmaps (qcow2 specification, "Bitmap directory").
 *
 * <p>Entry by entry, so that nothing is allocated that the directory merely claims.
 */
final class BitmapDirectory {
  private BitmapDirectory() {}

  /**
   * The bitmaps that may be believed, by name, in the order of the directory: those that are not in
   * use, whose extra data may be ignored, and whose names can be said. None while the header says
   * that all of them may be out of date.
   *
   * @throws CorruptImageException when anything about the bitmaps is not as it must be
   */
  static Map<String, BitmapEntry> read(ImageFile file, Header header) throws IOException {
    Map<String, BitmapEntry> believed = new LinkedHashMap<>();
    HeaderExtension extension = header.extension(HeaderExtension.BITMAPS);
    if (extension == null || (header.autoclearFeatures() & FeatureBits.BITMAPS) == 0) {
      return believed;
    }
    BitmapsExtension directory =
        BitmapsExtension.parse(
            file.name(), extension.data(), header.clusterBytes(), file.fileBytes());
    Map<String, Integer> names = new LinkedHashMap<>();
    long at = directory.directoryOffset();
    long end = at + directory.directoryBytes();
    for (int index = 0; index < directory.bitmaps(); index++) {
      ByteBuffer fixedPart = file.read(at, BitmapEntry.FIXED_BYTES);
      long bytes = BitmapEntry.bytes(fixedPart);
      if (bytes > end - at) {
        throw new CorruptImageException(
            "%s: bitmap %d runs past the end of the bitmap directory"
                .formatted(file.name(), index));
      }
      ByteBuffer nameBytes =
          file.read(at + BitmapEntry.nameAt(fixedPart), BitmapEntry.nameBytes(fixedPart));
      BitmapEntry entry = BitmapEntry.parse(file.name(), index, fixedPart, nameBytes);
      String name = entry.name();
      if (name != null && names.put(name, index) != null) {
        throw new CorruptImageException(
            "%s: bitmap %d has a name that another one has".formatted(file.name(), index));
      }
      if (name != null && entry.usable() && !entry.inUse()) {
        entry.requireTable(
            file.name(), index, header.clusterBytes(), header.virtualBytes(), file.fileBytes());
        believed.put(name, entry);
      }
      at += bytes;
    }
    if (at != end) {
      throw new CorruptImageException(
          "%s: the bitmap directory is %d bytes longer than its %d bitmaps"
              .formatted(file.name(), end - at, directory.bitmaps()));
    }
    return believed;
  }
}
