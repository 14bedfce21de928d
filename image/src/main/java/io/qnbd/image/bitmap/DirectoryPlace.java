package io.qnbd.image.bitmap;

import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.format.ExtensionArea;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.AutoclearBits;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * The header's bitmaps extension, which says where the directory is.
 *
 * <p>Only what changes is written, each time in one sector, so that no power cut leaves a header
 * that can't be read: in one step where all that changes lies in one sector; else what lies behind
 * the end marker first, and the eight bytes that replace the marker last. Where the extension's own
 * fields lie in two sectors, the autoclear bit is clear while they are written: a cut in between
 * leaves bitmaps that nobody believes.
 *
 * <p>Owner: the image's metadata lock.
 */
final class DirectoryPlace {
  private static final int SECTOR_BYTES = 512;

  private final Storage file;
  private final AutoclearBits autoclear;

  DirectoryPlace(Storage file, AutoclearBits autoclear) {
    this.file = file;
    this.autoclear = autoclear;
  }

  /** The first cluster as it is now. */
  private record Start(Header header, ByteBuffer cluster, ExtensionArea area) {}

  private Start read() throws IOException {
    ImageFile image = ImageFile.of(file);
    Header header = image.readHeader();
    ByteBuffer cluster = image.read(0, header.clusterBytes());
    return new Start(header, cluster, ExtensionArea.of(header, cluster));
  }

  /**
   * Throws when the first cluster has no room for the extension.
   *
   * @param directory any: all are of one length
   */
  void requireRoom(BitmapsExtension directory) throws IOException {
    Start start = read();
    if (start.area().bitmapsAt() < 0 && start.area().retiredAt() < 0) {
      requireRoom(start, with(start.header(), directory));
    }
  }

  private void requireRoom(Start start, Header next) throws UnsupportedImageException {
    boolean fits =
        next.encodedBytes() <= start.header().clusterBytes()
            && (inOneSector(start.cluster(), next.encode()) || roomForSteps(start));
    if (!fits) {
      throw new UnsupportedImageException(
          file.name()
              + ": its first cluster of "
              + start.header().clusterBytes()
              + " bytes has no room for bitmaps");
    }
  }

  /** Makes that directory, which is durable, the image's. Durable when this returns. */
  void publish(BitmapsExtension directory) throws IOException {
    Start start = read();
    ExtensionArea area = start.area();
    ByteBuffer data = directory.encode();
    int at = area.bitmapsAt() + ExtensionArea.PREFIX_BYTES;
    if (area.bitmapsAt() >= 0 && (start.header().autoclearFeatures() & FeatureBits.BITMAPS) != 0) {
      ByteBuffer next = ByteBuffer.allocate(start.cluster().capacity());
      next.put(start.cluster().clear()).put(at, data, 0, BitmapsExtension.BYTES);
      if (inOneSector(start.cluster(), next)) {
        writeDifference(start.cluster(), next);
        return;
      }
      autoclear.keepOnly(~FeatureBits.BITMAPS);
    }
    if (area.bitmapsAt() >= 0) {
      write(at, data);
    } else if (area.retiredAt() >= 0) {
      write(area.retiredAt() + ExtensionArea.PREFIX_BYTES, data);
      write(area.retiredAt(), intOf(HeaderExtension.BITMAPS));
    } else {
      append(start, directory);
    }
    autoclear.set(FeatureBits.BITMAPS);
  }

  /** Makes the image one without bitmaps. Durable when this returns. */
  void remove() throws IOException {
    autoclear.keepOnly(~FeatureBits.BITMAPS);
    Start start = read();
    if (start.area().bitmapsAt() < 0) {
      return;
    }
    List<HeaderExtension> others = new ArrayList<>(start.header().extensions());
    others.removeIf(extension -> extension.type() == HeaderExtension.BITMAPS);
    ByteBuffer next = start.header().toBuilder().extensions(others).build().encode();
    if (inOneSector(start.cluster(), next)) {
      writeDifference(start.cluster(), next);
    } else if (start.area().bitmapsLast()) {
      write(start.area().bitmapsAt(), ByteBuffer.allocate(ExtensionArea.PREFIX_BYTES));
    } else {
      write(start.area().bitmapsAt(), intOf(ExtensionArea.RETIRED));
    }
  }

  private static Header with(Header header, BitmapsExtension directory) {
    List<HeaderExtension> extensions = new ArrayList<>(header.extensions());
    extensions.add(new HeaderExtension(HeaderExtension.BITMAPS, directory.encode()));
    return header.toBuilder().extensions(extensions).build();
  }

  private void append(Start start, BitmapsExtension directory) throws IOException {
    Header next = with(start.header(), directory);
    requireRoom(start, next);
    ByteBuffer encoded = next.encode();
    if (inOneSector(start.cluster(), encoded)) {
      writeDifference(start.cluster(), encoded);
      return;
    }
    moveBackingName(start);
    int at = start.area().endAt();
    ByteBuffer behind = ByteBuffer.allocate(BitmapsExtension.BYTES + ExtensionArea.PREFIX_BYTES);
    write(at + ExtensionArea.PREFIX_BYTES, behind.put(directory.encode()).clear());
    ByteBuffer prefix = ByteBuffer.allocate(ExtensionArea.PREFIX_BYTES);
    write(at, prefix.putInt(HeaderExtension.BITMAPS).putInt(BitmapsExtension.BYTES).flip());
  }

  /** Where the extension with a new end marker behind it would end. */
  private static int appendedEnd(Start start) {
    return start.area().endAt() + 2 * ExtensionArea.PREFIX_BYTES + BitmapsExtension.BYTES;
  }

  private static long nameAt(Start start) {
    return start.cluster().getLong(HeaderLayout.BACKING_OFFSET_AT);
  }

  private static int nameBytes(Start start) {
    return start.cluster().getInt(HeaderLayout.BACKING_BYTES_AT);
  }

  private static boolean nameInTheWay(Start start) {
    return nameAt(start) != 0 && nameAt(start) < appendedEnd(start);
  }

  /** Behind the old name and the extension, so that neither is overwritten. */
  private static long newNameAt(Start start) {
    return (Math.max(appendedEnd(start), nameAt(start) + nameBytes(start)) + 7) & ~7L;
  }

  private static boolean roomForSteps(Start start) {
    long end = nameInTheWay(start) ? newNameAt(start) + nameBytes(start) : appendedEnd(start);
    return start.area().endAt() >= 0 && end <= start.header().clusterBytes();
  }

  private void moveBackingName(Start start) throws IOException {
    if (!nameInTheWay(start)) {
      return;
    }
    long to = newNameAt(start);
    write(to, start.cluster().slice((int) nameAt(start), nameBytes(start)));
    write(HeaderLayout.BACKING_OFFSET_AT, ByteBuffer.allocate(Long.BYTES).putLong(to).flip());
  }

  private static boolean inOneSector(ByteBuffer old, ByteBuffer next) {
    int first = old.clear().mismatch(next.clear());
    return first < 0 || first / SECTOR_BYTES == lastDifference(old, next) / SECTOR_BYTES;
  }

  private static int lastDifference(ByteBuffer old, ByteBuffer next) {
    int at = old.capacity() - 1;
    while (old.get(at) == next.get(at)) {
      at--;
    }
    return at;
  }

  private void writeDifference(ByteBuffer old, ByteBuffer next) throws IOException {
    int first = old.clear().mismatch(next.clear());
    if (first >= 0) {
      write(first, next.slice(first, lastDifference(old, next) + 1 - first));
    }
  }

  private void write(long at, ByteBuffer bytes) throws IOException {
    file.write(at, bytes);
    file.sync();
  }

  private static ByteBuffer intOf(int value) {
    return ByteBuffer.allocate(Integer.BYTES).putInt(value).flip();
  }
}
