package io.qnbd.image.metadata;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.format.SnapshotTable;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Reads an image's structures by their place. What lies past the end of the file reads as zeroes;
 * who asks has made sure that at most the end of a cluster does.
 *
 * @param fileBytes the length of the file when the check began
 */
public record ImageFile(Storage storage, long fileBytes) {

  public static ImageFile of(Storage storage) throws IOException {
    return new ImageFile(storage, storage.length());
  }

  public String name() {
    return storage.name();
  }

  public Header readHeader() throws IOException {
    ByteBuffer start = read(0, (int) Math.min(fileBytes, HeaderLayout.V2_BYTES));
    int clusterBytes = Header.clusterBytes(name(), start);
    ByteBuffer cluster = read(0, (int) Math.min(fileBytes, clusterBytes));
    return Header.parse(name(), cluster, fileBytes);
  }

  public boolean hasQcow2Magic() throws IOException {
    return Header.hasMagic(read(0, (int) Math.min(fileBytes, Integer.BYTES)));
  }

  /** Reads the table entry by entry: its length shows only then, and its count may lie. */
  public SnapshotTable readSnapshots(Header header) throws IOException {
    List<SnapshotEntry> entries = new ArrayList<>();
    long at = header.snapshotsOffset();
    for (int index = 0; index < header.snapshotCount(); index++) {
      if (fileBytes - at < SnapshotEntry.FIXED_BYTES) {
        throw new CorruptImageException(
            String.format("%s: snapshot %d runs past the end of the file", name(), index));
      }
      ByteBuffer fixedPart = read(at, SnapshotEntry.FIXED_BYTES);
      long bytes = Math.min(SnapshotEntry.bytes(name(), index, fixedPart), fileBytes - at);
      SnapshotEntry entry = SnapshotEntry.parse(name(), index, read(at, (int) bytes));
      entries.add(entry);
      at += entry.bytes();
      SnapshotTable.requireBytes(name(), at - header.snapshotsOffset());
    }
    return new SnapshotTable(entries);
  }

  /** A big-endian buffer of that many bytes. */
  public ByteBuffer read(long at, int bytes) throws IOException {
    ByteBuffer target = ByteBuffer.allocate(bytes);
    storage.read(at, target);
    return target.clear();
  }

  /** Reads into the buffer's whole length; zeroes where the file has ended. */
  public void read(long at, ByteBuffer target) throws IOException {
    target.clear();
    storage.read(at, target);
    while (target.hasRemaining()) {
      target.put((byte) 0);
    }
    target.clear();
  }
}
