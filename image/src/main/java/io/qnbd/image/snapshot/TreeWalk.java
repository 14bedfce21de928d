package io.qnbd.image.snapshot;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.Guard;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.metadata.SeenTables;
import io.qnbd.image.metadata.TableIo;
import java.io.IOException;
import java.util.Arrays;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Walks through all that an L1 entry refers to in the file, the L2 table included. What turns out
 * to be other metadata as well makes the image a corrupt one.
 *
 * <p>Owner: the image's metadata lock, which {@link #forEachTable} alone takes itself.
 */
final class TreeWalk {
  private final Storage file;
  private final Geometry geometry;
  private final ReentrantLock metadata;
  private final Guard guard;

  /** For one L2 table after the other: a snapshot of a large disk has thousands. */
  private long @Nullable [] scratch;

  TreeWalk(Storage file, Geometry geometry, ReentrantLock metadata, Guard guard) {
    this.file = file;
    this.geometry = geometry;
    this.metadata = metadata;
    this.guard = guard;
  }

  /** What a reference is told to. */
  @FunctionalInterface
  interface Reference {
    void at(long cluster) throws IOException;
  }

  /** What is done with an L1 entry that names a table, and how often the table is named. */
  @FunctionalInterface
  interface Step {
    void on(long l1Entry, int times) throws IOException;
  }

  /**
   * Each table once, however many entries name it, so that the time it takes is bounded by what the
   * file has. Takes the lock for one at a time, so that no guest waits for long.
   */
  void forEachTable(long[] l1, Step step) throws IOException {
    long[] sorted = new long[l1.length];
    for (int index = 0; index < l1.length; index++) {
      sorted[index] = L1Entry.tableOffset(l1[index]);
    }
    Arrays.sort(sorted);
    for (int first = 0, end; first < sorted.length; first = end) {
      for (end = first + 1; end < sorted.length && sorted[end] == sorted[first]; end++) {}
      if (sorted[first] != 0) {
        metadata.lock();
        try {
          step.on(sorted[first], end - first);
        } finally {
          metadata.unlock();
        }
      }
    }
  }

  /** Tells of every reference; one that can't be makes the image a corrupt one. */
  void forEachReference(long l1Entry, Reference reference) throws IOException {
    long table = L1Entry.tableOffset(l1Entry);
    if (table == 0) {
      return;
    }
    requireInFile(table);
    if (geometry.inCluster(table) != 0) {
      throw guard.found(String.format("an L1 entry is 0x%x, which names no L2 table", l1Entry));
    }
    requireNotOf(MetadataUse.L2_TABLE, geometry.clusterOf(table));
    reference.at(geometry.clusterOf(table));
    if (!file.isHole(table, geometry.clusterBytes())) {
      referencesOf(table, reference, true);
    }
  }

  /**
   * Tells of every reference once at least, and leaves out what can't be.
   *
   * @param seen L2 tables that were walked through before; gets this entry's if it is no hole
   */
  void forEachPlausible(long l1Entry, SeenTables seen, Reference reference) throws IOException {
    long table = L1Entry.tableOffset(l1Entry);
    boolean plausible =
        table != 0
            && geometry.inCluster(table) == 0
            && table <= file.length() - geometry.clusterBytes();
    if (!plausible) {
      return;
    }
    reference.at(geometry.clusterOf(table));
    if (!file.isHole(table, geometry.clusterBytes()) && seen.add(table)) {
      referencesOf(table, reference, false);
    }
  }

  private void referencesOf(long table, Reference reference, boolean strict) throws IOException {
    long[] l2 = scratch;
    if (l2 == null) {
      l2 = new long[geometry.clusterBytes() / Long.BYTES];
      scratch = l2;
    }
    TableIo.read(file, table, l2, "L2 table");
    for (int index = 0; index < l2.length; index += geometry.l2EntryWords()) {
      referenceOf(l2[index], reference, strict);
    }
  }

  private void referenceOf(long entry, Reference reference, boolean strict) throws IOException {
    long at;
    long bytes;
    if (L2Entry.compressed(entry)) {
      at = L2Entry.compressedOffset(entry, geometry.clusterBits());
      bytes = L2Entry.compressedBytes(entry, geometry.clusterBits());
    } else {
      at = L2Entry.hostOffset(entry);
      bytes = at == 0 ? 0 : 1;
    }
    if (strict && bytes > 0) {
      requireInFile(at);
    }
    for (long c = geometry.clusterOf(at);
        bytes > 0 && c <= geometry.clusterOf(at + bytes - 1);
        c++) {
      requireNotOf(null, c);
      reference.at(c);
    }
  }

  /** Counts are about to change, and must not do so in something that is data as well. */
  private void requireNotOf(@Nullable MetadataUse allowed, long cluster)
      throws CorruptImageException {
    if (allowed == null ? guard.metadataAt(cluster) : guard.holdsOtherThan(allowed, cluster)) {
      guard.requireFree(
          allowed == null ? "data that a table refers to" : allowed.toString(), cluster, 1);
    }
  }

  private void requireInFile(long hostOffset) throws IOException {
    if (hostOffset >= file.length()) {
      throw guard.found(
          String.format(
              "a table refers to 0x%x, past the end of the file; run a check", hostOffset));
    }
  }
}
