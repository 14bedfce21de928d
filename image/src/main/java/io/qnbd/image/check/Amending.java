package io.qnbd.image.check;

import io.qnbd.image.AmendOptions;
import io.qnbd.image.CheckReport;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RepairScope;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.FeatureSet;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderBuilder;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.format.SnapshotEntry;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.HeaderRewrite;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Changes the format of an image at rest: its version, whether counts may be lazy, how wide they
 * are. The disk stays as it is.
 *
 * <pre>
 *   1. check     that all of it is possible, and that the image is in order; counts are rebuilt if
 *                the image was not closed cleanly, and lowered to what they should be if their
 *                width changes
 *   2. version 3 the header, if it had version 2                          durable before
 *   3. counts    a new table with new blocks behind the file's end, then the header names it with
 *                the new width                                            durable before
 *   4. lazy      the header's bit                                         durable before
 *   5. version 2 the header, if that is what is asked
 * </pre>
 *
 * <p>Each is one change of the header, see {@link HeaderRewrite}, so a power cut leaves an image
 * that is whole and has some of what was asked.
 *
 * <p>Owner: one call. Nothing else may have the image open.
 */
public final class Amending {
  private static final int REFCOUNT_BITS_V2 = 16;

  private final Storage file;
  private final AmendOptions amend;
  private final ProgressListener progress;

  private Amending(Storage file, AmendOptions amend, ProgressListener progress) {
    this.file = file;
    this.amend = amend;
    this.progress = progress;
  }

  /**
   * Throws if the image can't be what is asked, or is damaged; reads only. Zeroes that the disk
   * does not share with a snapshot are no hindrance yet: they can be made otherwise.
   *
   * @return whether version 3 becomes version 2, which knows no clusters of zeroes
   */
  public static boolean check(Storage file, AmendOptions amend) throws IOException {
    Amending amending = new Amending(file, amend, ProgressListener.NONE);
    Header header = amending.requirePossible();
    boolean older = header.version() == 3 && amending.targetVersion(header) == 2;
    if (older) {
      if (!header.dirty()) { // its counts are rebuilt when it is opened
        amending.requireInOrder();
      }
      amending.requireSnapshotsWithoutZeroClusters(header);
    }
    return older;
  }

  /** Amends the image; durable when this returns. */
  public static void amend(Storage file, AmendOptions amend, ProgressListener progress)
      throws IOException {
    new Amending(file, amend, progress).run();
  }

  private Header read() throws IOException {
    return ImageFile.of(file).readHeader();
  }

  private void run() throws IOException {
    Header header = requirePossible();
    if (header.dirty()) {
      Rebuild.rebuild(file, progress);
    }
    CheckReport report = requireInOrder();
    boolean older = targetVersion(header) == 2 && header.version() == 3;
    if (older) {
      requireNoZeroClusters();
    }
    Integer bits = amend.refcountBits();
    int order = Integer.numberOfTrailingZeros(bits == null ? 0 : bits);
    boolean otherWidth = bits != null && bits != header.geometry().refcountBits();
    if (otherWidth) {
      requireWideEnough(order);
      if (report.leaks() > 0) {
        // The new counts are what is referenced, and a cluster that is counted once is COPIED.
        Repair.repair(file, RepairScope.LEAKS, progress);
      }
    }
    if (targetVersion(header) == 3 && header.version() == 2) {
      HeaderRewrite.write(file, asVersion3(read()));
    }
    if (otherWidth) {
      changeWidth(order);
    }
    Boolean lazy = amend.lazyRefcounts();
    if (lazy != null && lazy != read().lazyRefcounts()) {
      Header now = read();
      long others = now.compatibleFeatures() & ~FeatureBits.LAZY_REFCOUNTS;
      long features = others | (lazy ? FeatureBits.LAZY_REFCOUNTS : 0);
      HeaderRewrite.write(file, ofKnownBits(now).compatibleFeatures(features).build());
    }
    if (older) {
      HeaderRewrite.write(file, asVersion2(read()));
    }
  }

  private CheckReport requireInOrder() throws IOException {
    CheckReport report = Checker.check(file, progress);
    if (report.corruptions() > 0) {
      throw new CorruptImageException(
          "%s: is damaged (%s): repair it first"
              .formatted(file.name(), report.findings().getFirst()));
    }
    return report;
  }

  private int targetVersion(Header header) {
    Integer version = amend.version();
    return version == null ? header.version() : version;
  }

  private Header requirePossible() throws IOException {
    Header header = read();
    header.requireKnownFeatures(file.name());
    if (header.corrupt()) {
      throw new CorruptImageException(file.name() + ": is marked corrupt: repair it first");
    }
    if (targetVersion(header) == 2) {
      requireOfVersion2(header);
    } else if (header.version() == 2) {
      requireSnapshotsOfVersion3();
    }
    return header;
  }

  private void requireOfVersion2(Header header) throws IOException {
    Integer bits = amend.refcountBits();
    if ((bits == null ? header.geometry().refcountBits() : bits) != REFCOUNT_BITS_V2) {
      throw notInVersion2("reference counts of other than 16 bits: add refcount_bits=16");
    }
    if (Boolean.TRUE.equals(amend.lazyRefcounts())) {
      throw notInVersion2("lazy reference counts");
    }
    long features = header.incompatibleFeatures() & ~FeatureBits.DIRTY;
    if (features != 0) {
      throw notInVersion2(
          String.join(", ", FeatureBits.names(FeatureSet.INCOMPATIBLE, features, null)));
    }
    if (header.cryptMethod() == Header.CRYPT_LUKS) {
      throw notInVersion2("LUKS encryption");
    }
    for (HeaderExtension extension : header.extensions()) {
      if (extension.type() == HeaderExtension.BITMAPS) {
        throw notInVersion2("persistent bitmaps: remove them first");
      }
    }
    for (SnapshotEntry snapshot : ImageFile.of(file).readSnapshots(header).entries()) {
      if (snapshot.virtualBytes().orElse(header.virtualBytes()) != header.virtualBytes()
          || snapshot.vmStateBytes() > 0xffff_ffffL) {
        throw notInVersion2(
            "snapshots of another size, and %s is one: delete it first"
                .formatted(snapshot.nameText()));
      }
    }
  }

  private UnsupportedImageException notInVersion2(String what) {
    return new UnsupportedImageException("%s: compat=0.10 has no %s".formatted(file.name(), what));
  }

  private void requireSnapshotsOfVersion3() throws IOException {
    Header header = read();
    for (SnapshotEntry snapshot : ImageFile.of(file).readSnapshots(header).entries()) {
      if (snapshot.extraData().remaining() < SnapshotEntry.EXTRA_BYTES_V3) {
        throw new UnsupportedImageException(
            "%s: the snapshot %s lacks what compat=1.1 asks of it: delete it first"
                .formatted(file.name(), snapshot.nameText()));
      }
    }
  }

  /** A snapshot's tables stay as they are. */
  private void requireSnapshotsWithoutZeroClusters(Header header) throws IOException {
    ImageFile image = ImageFile.of(file);
    List<SnapshotEntry> snapshots = image.readSnapshots(header).entries();
    for (int index = 0; index < snapshots.size(); index++) {
      SnapshotEntry snapshot = snapshots.get(index);
      snapshot.requireTable(file.name(), index, header.clusterBytes(), file.length());
      ByteBuffer l1 = image.read(snapshot.l1Offset(), (int) snapshot.l1Entries() * Long.BYTES);
      while (l1.hasRemaining()) {
        long at = L1Entry.tableOffset(l1.getLong());
        if (at != 0) {
          requireNoZeroClusters(at, header.geometry());
        }
      }
    }
  }

  /** Those of the disk were made otherwise before. */
  private void requireNoZeroClusters() throws IOException {
    ReferenceWalk walk = new ReferenceWalk(file, ReferenceWalk.pagesMax());
    walk.count(progress);
    Geometry geometry = walk.header().geometry();
    for (long cluster : walk.counts().clustersOf(ClusterUse.L2_TABLE)) {
      requireNoZeroClusters(geometry.offsetOf(cluster), geometry);
    }
  }

  private void requireNoZeroClusters(long l2At, Geometry geometry) throws IOException {
    ByteBuffer table = ByteBuffer.allocate(geometry.clusterBytes());
    ImageFile.of(file).read(l2At, table);
    for (int at = 0; at < table.limit(); at += L2Entry.BYTES) {
      long entry = table.getLong(at);
      if (!L2Entry.compressed(entry) && L2Entry.zero(entry)) {
        throw notInVersion2("clusters of zeroes, and snapshots have some: delete them first");
      }
    }
  }

  private void requireWideEnough(int order) throws IOException {
    ReferenceWalk walk = new ReferenceWalk(file, ReferenceWalk.pagesMax());
    walk.count(progress);
    Geometry geometry = read().toBuilder().refcountOrder(order).build().geometry();
    Rebuild.requireFewEnough(file, geometry, walk.counts());
  }

  /**
   * For a new header. What other software keeps in the image beside what it refers to is not
   * counted, so the bits that say that it is up to date must go.
   */
  private static HeaderBuilder ofKnownBits(Header header) {
    return header.toBuilder()
        .autoclearFeatures(header.autoclearFeatures() & FeatureBits.AUTOCLEAR_KNOWN);
  }

  private void changeWidth(int order) throws IOException {
    Header header = read();
    ReferenceWalk walk = new ReferenceWalk(file, ReferenceWalk.pagesMax());
    walk.count(progress, false); // what the old table and blocks take is free afterwards
    ClusterCounts counts = walk.counts();
    Geometry geometry = header.toBuilder().refcountOrder(order).build().geometry();
    long first = Math.max(geometry.clustersFor(file.length()), counts.end());
    file.sync(); // what was read may be in the page cache only
    RefcountRewrite.Table table =
        RefcountRewrite.write(
            file,
            geometry,
            new RefcountRewrite.Counts() {
              @Override
              public long of(long cluster) {
                return counts.count(cluster);
              }

              @Override
              public long next(long from, long end) {
                return counts.nextReferenced(from, end);
              }
            },
            first);
    HeaderRewrite.write(
        file,
        ofKnownBits(header)
            .refcountOrder(order)
            .refcountTable(table.offset(), table.clusters())
            .build());
  }

  private static Header asVersion3(Header header) {
    List<HeaderExtension> extensions = new ArrayList<>(header.extensions());
    if (extensions.stream().noneMatch(e -> e.type() == HeaderExtension.FEATURE_NAMES)) {
      extensions.add(FeatureBits.nameTable());
    }
    Header named = header.toBuilder().version(3).extensions(extensions).build();
    // The names of the features are for people: an image of tiny clusters does without.
    return named.encodedBytes() <= named.clusterBytes()
        ? named
        : header.toBuilder().version(3).build();
  }

  /** Other software clears autoclear bits and ignores compatible ones, so both may go. */
  private static Header asVersion2(Header header) {
    List<HeaderExtension> extensions =
        header.extensions().stream()
            .filter(extension -> extension.type() != HeaderExtension.FEATURE_NAMES)
            .toList();
    return header.toBuilder()
        .version(2)
        .incompatibleFeatures(0)
        .compatibleFeatures(0)
        .autoclearFeatures(0)
        .extensions(extensions)
        .build();
  }
}
