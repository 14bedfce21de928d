package io.qnbd.image.check;

import io.qnbd.image.CheckReport;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.Storage;
import java.io.IOException;

/**
 * Checks the metadata of a qcow2 image, reading only, as {@code qemu-img check} does.
 *
 * <ol>
 *   <li>Everything that refers to a cluster is counted: see {@link ReferenceWalk}.
 *   <li>The stored refcounts are compared with that: more is a leak, less is a corruption.
 *   <li>The COPIED flags of the active tables are compared with the stored refcounts.
 * </ol>
 *
 * <p>Stricter than QEMU: metadata that overlaps anything is a corruption even where the stored
 * refcount is as high as the count.
 *
 * <p>Encrypted images, and those with a data file, subclusters or zstd, are checked too: nothing of
 * that changes what is counted, or it is taken into account. No other file is opened.
 */
public final class Checker {
  private Checker() {}

  /**
   * Checks the image.
   *
   * @throws io.qnbd.image.CorruptImageException when header or snapshot table can't be read at all
   * @throws io.qnbd.image.UnsupportedImageException when the image has features that are unknown
   */
  public static CheckReport check(Storage storage) throws IOException {
    return check(storage, ProgressListener.NONE);
  }

  /** The same, told how far it is. */
  public static CheckReport check(Storage storage, ProgressListener progress) throws IOException {
    return check(storage, ReferenceWalk.pagesMax(), progress);
  }

  static CheckReport check(Storage storage, int pagesMax) throws IOException {
    return check(storage, pagesMax, ProgressListener.NONE);
  }

  private static CheckReport check(Storage storage, int pagesMax, ProgressListener progress)
      throws IOException {
    ReferenceWalk walk = new ReferenceWalk(storage, pagesMax);
    Header header = walk.header();
    Geometry geometry = header.geometry();
    Findings findings = walk.findings();

    noteFlags(header, findings);
    walk.count(progress);
    walk.refcounts().compare();
    walk.mapping().checkFlags();

    return new CheckReport(
        findings.corruptions(),
        findings.leaks(),
        findings.texts(),
        geometry.offsetOf(walk.refcounts().highestCluster() + 1),
        geometry.clustersFor(header.virtualBytes()),
        walk.mapping().allocatedClusters(),
        walk.mapping().compressedClusters());
  }

  private static void noteFlags(Header header, Findings findings) {
    if (header.dirty()) {
      findings.note("the image was not closed cleanly (dirty bit): refcounts may be out of date");
    }
    if (header.corrupt()) {
      findings.note("the image is marked corrupt");
    }
  }
}
