package io.qnbd.image.bitmap;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.format.BitmapEntry;
import io.qnbd.image.format.BitmapTableEntry;
import io.qnbd.image.format.BitmapsExtension;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.LatchedStorage;
import io.qnbd.image.metadata.L1Tables;
import io.qnbd.image.metadata.MetadataUse;
import io.qnbd.image.metadata.SeenTables;
import io.qnbd.image.metadata.TableIo;
import io.qnbd.image.refcount.Allocator;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;

/**
 * Which clusters an image's bitmaps have, to make sure that nothing else has them.
 *
 * <p>Bitmaps are written to in their place and their clusters freed, and nothing but the image says
 * which clusters are theirs: one that names a guest's data, or a table of the format, would have it
 * overwritten or given away. Reference counts do not tell, because whoever made such an image has
 * made those too. So before bitmaps are used in an image that is written to, each of their clusters
 * is looked for in all tables of the disk and of its snapshots. Those are read once, some 13 MiB
 * for 100 GiB with 64 KiB clusters, and images without bitmaps don't pay for it.
 *
 * <p>What the bitmaps get afterwards comes from the allocator and is theirs. Owner: the thread that
 * opens the image.
 */
final class BitmapClusters {
  /** Tells most of the clusters that are not a bitmap's without a search. */
  private static final int FILTER_BITS = 1 << 16;

  /** More than any image has that is not made to keep us busy: 256 GiB of 64 KiB clusters. */
  private static final int CLUSTERS_MAX = 1 << 22;

  private static final int PIECE_ENTRIES = 8192;

  private final LatchedStorage file;
  private final Header header;
  private final Geometry geometry;
  private final Allocator allocator;

  private long[] clusters = new long[64];
  private int count;
  private final long[] filter = new long[FILTER_BITS / Long.SIZE];

  private BitmapClusters(LatchedStorage file, Header header, Allocator allocator) {
    this.file = file;
    this.header = header;
    this.geometry = header.geometry();
    this.allocator = allocator;
  }

  /**
   * Throws if a cluster of the bitmaps is counted as free, or is something else as well.
   *
   * @param l1Tables those of the disk and of all its snapshots
   */
  static void requireTheirs(
      LatchedStorage file,
      Header header,
      Allocator allocator,
      List<Bitmap> bitmaps,
      L1Tables l1Tables)
      throws IOException {
    if (bitmaps.isEmpty()) {
      return;
    }
    BitmapClusters clusters = new BitmapClusters(file, header, allocator);
    clusters.addDirectory();
    for (Bitmap bitmap : bitmaps) {
      clusters.addTable(bitmap);
    }
    clusters.requireDistinct(); // the tables, before data is taken from them
    for (Bitmap bitmap : bitmaps) {
      clusters.addData(bitmap);
    }
    clusters.requireDistinct();
    clusters.requireCounted();
    clusters.requireInNoTable(l1Tables);
  }

  private void addDirectory() throws CorruptImageException {
    HeaderExtension extension = header.extension(HeaderExtension.BITMAPS);
    if (extension == null) {
      throw new AssertionError("bitmaps without an extension");
    }
    BitmapsExtension place =
        BitmapsExtension.parse(
            file.name(), extension.data(), header.clusterBytes(), Long.MAX_VALUE);
    add(place.directoryOffset(), place.directoryBytes());
  }

  /** The file may grow to where a table is that is not in it: then it would be somebody's data. */
  private void addTable(Bitmap bitmap) throws IOException {
    BitmapEntry entry = bitmap.entry;
    if (entry.tableEntries() == 0) {
      return;
    }
    long at = entry.tableOffset();
    long bytes = (long) entry.tableEntries() * Long.BYTES;
    if (at <= 0
        || geometry.inCluster(at) != 0
        || at > file.length() - bytes
        || !BitmapEntry.dataFits(entry.tableEntries(), geometry.clusterBytes())) {
      throw new CorruptImageException(
          "%s: bitmap %s has its table of %d bytes at 0x%x, expected a cluster inside the file"
              .formatted(file.name(), entry.name(), bytes, at));
    }
    add(at, bytes);
  }

  private void addData(Bitmap bitmap) throws IOException {
    BitmapEntry entry = bitmap.entry;
    StoredBits rules = new StoredBits(file, geometry, entry);
    long[] piece = new long[PIECE_ENTRIES];
    for (int first = 0; first < entry.tableEntries(); first += PIECE_ENTRIES) {
      long at = entry.tableOffset() + (long) first * Long.BYTES;
      int count = Math.min(PIECE_ENTRIES, entry.tableEntries() - first);
      if (file.isHole(at, (long) count * Long.BYTES)) {
        continue;
      }
      long[] values = count == PIECE_ENTRIES ? piece : new long[count];
      TableIo.read(file, at, values, "table of a bitmap");
      for (int index = 0; index < count; index++) {
        rules.require(values[index], first + index);
        if (BitmapTableEntry.dataOffset(values[index]) != 0) {
          add(BitmapTableEntry.dataOffset(values[index]), geometry.clusterBytes());
        }
      }
    }
  }

  private void add(long at, long bytes) throws CorruptImageException {
    if (count + geometry.clustersFor(bytes) > CLUSTERS_MAX) {
      throw new CorruptImageException(
          "%s: its bitmaps have more than %d clusters".formatted(file.name(), CLUSTERS_MAX));
    }
    for (long i = 0; i < geometry.clustersFor(bytes); i++) {
      long cluster = geometry.clusterOf(at) + i;
      if (count == clusters.length) {
        clusters = Arrays.copyOf(clusters, 2 * count);
      }
      clusters[count++] = cluster;
      int bit = (int) cluster & (FILTER_BITS - 1);
      filter[bit / Long.SIZE] |= 1L << bit;
    }
  }

  private void requireDistinct() throws CorruptImageException {
    Arrays.sort(clusters, 0, count);
    for (int i = 1; i < count; i++) {
      if (clusters[i] == clusters[i - 1]) {
        throw notTheirs(clusters[i], "named twice by bitmaps");
      }
    }
  }

  private void requireCounted() throws IOException {
    for (int i = 0; i < count; i++) {
      if (!allocator.inUse(clusters[i])) {
        throw notTheirs(clusters[i], "a bitmap's, but counted as free");
      }
      if (allocator.guard().holdsOtherThan(MetadataUse.BITMAPS, clusters[i])) {
        throw notTheirs(clusters[i], "a bitmap's, and metadata of another kind");
      }
    }
  }

  private void requireInNoTable(L1Tables l1Tables) throws IOException {
    SeenTables seen = new SeenTables();
    long[] l2 = new long[geometry.clusterBytes() / Long.BYTES];
    l1Tables.forEach(l1 -> {
      for (long entry : l1) {
        long table = L1Entry.tableOffset(entry);
        if (table != 0) {
          requireInNoL2(table, seen, l2);
        }
      }
    });
  }

  private void requireInNoL2(long table, SeenTables seen, long[] l2) throws IOException {
    requireOther(table, geometry.clusterBytes(), "an L2 table");
    // Whoever comes to use a table that is not where one can be is told.
    boolean plausible =
        geometry.inCluster(table) == 0 && table <= file.length() - geometry.clusterBytes();
    if (plausible && !file.isHole(table, geometry.clusterBytes()) && seen.add(table)) {
      TableIo.read(file, table, l2, "L2 table");
      requireInNoEntry(l2);
    }
  }

  private void requireInNoEntry(long[] l2) throws CorruptImageException {
    if (header.hasDataFile()) {
      return;
    }
    int clusterBits = geometry.clusterBits();
    for (int index = 0; index < l2.length; index += geometry.l2EntryWords()) {
      long entry = l2[index];
      if (L2Entry.compressed(entry)) {
        requireOther(
            L2Entry.compressedOffset(entry, clusterBits),
            L2Entry.compressedBytes(entry, clusterBits),
            "compressed data");
      } else if (L2Entry.hostOffset(entry) != 0) {
        requireOther(L2Entry.hostOffset(entry), 1, "data of the disk or of a snapshot");
      }
    }
  }

  private void requireOther(long at, long bytes, String what) throws CorruptImageException {
    long last = geometry.clusterOf(at + bytes - 1);
    for (long cluster = geometry.clusterOf(at); cluster <= last; cluster++) {
      int bit = (int) cluster & (FILTER_BITS - 1);
      if ((filter[bit / Long.SIZE] >>> bit & 1) != 0
          && Arrays.binarySearch(clusters, 0, count, cluster) >= 0) {
        throw notTheirs(cluster, "a bitmap's, and " + what);
      }
    }
  }

  private CorruptImageException notTheirs(long cluster, String what) {
    return new CorruptImageException(
        String.format(
            "%s: cluster %d (0x%x) is %s", file.name(), cluster, geometry.offsetOf(cluster), what));
  }
}
