package io.qnbd.image.check;

import io.qnbd.image.CheckReport;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.MemoryStorage;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.zip.GZIPInputStream;

/** An image that QEMU made, in memory, to be damaged and checked. */
final class Sample {
  static final List<String> NAMES =
      List.of("v2-snapshot", "v3-compressed", "v3-bitmaps", "v3-subclusters");

  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  private final byte[] contents;
  private final ByteBuffer bytes;

  private Sample(byte[] contents) {
    this.contents = contents;
    this.bytes = ByteBuffer.wrap(contents);
  }

  static Sample of(byte[] contents) {
    return new Sample(contents.clone());
  }

  static Sample load(String name) throws IOException {
    try (InputStream zipped = Sample.class.getResourceAsStream(name + ".qcow2.gz")) {
      if (zipped == null) {
        throw new IOException("there is no sample " + name);
      }
      return new Sample(new GZIPInputStream(zipped).readAllBytes());
    }
  }

  /** The contents, to be changed in place. */
  ByteBuffer bytes() {
    return bytes;
  }

  byte[] contents() {
    return contents.clone();
  }

  CheckReport check() throws IOException {
    return Checker.check(MemoryStorage.of(contents));
  }

  CheckReport checkCut(int length) throws IOException {
    MemoryStorage file = MemoryStorage.of(contents);
    file.setLength(length);
    return Checker.check(file);
  }

  Header header() throws IOException {
    return Header.parse("sample", bytes, contents.length);
  }

  int l1At() {
    return (int) bytes.getLong(HeaderLayout.L1_OFFSET_AT);
  }

  /** Where the L2 table of the first L1 entry stands. */
  int l2At() {
    return (int) (bytes.getLong(l1At()) & OFFSET_MASK);
  }

  int refcountTableAt() {
    return (int) bytes.getLong(HeaderLayout.REFCOUNT_TABLE_OFFSET_AT);
  }

  int refcountBlockAt() {
    return (int) bytes.getLong(refcountTableAt());
  }

  int snapshotsAt() {
    return (int) bytes.getLong(HeaderLayout.SNAPSHOTS_OFFSET_AT);
  }

  Sample set(int at, long value) {
    bytes.putLong(at, value);
    return this;
  }

  Sample flip(int at, long bits) {
    return set(at, bytes.getLong(at) ^ bits);
  }
}
