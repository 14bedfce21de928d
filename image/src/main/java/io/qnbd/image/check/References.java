package io.qnbd.image.check;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import org.jspecify.annotations.Nullable;

/**
 * Counts references and judges each: that it stays in the file, and that what it points to is not
 * something else already. Where both sides of an overlap are known, {@link Fixes} hears of it.
 *
 * <p>Owner: one check. Not thread-safe.
 */
final class References {
  private final ImageFile file;
  private final Geometry geometry;
  private final Findings findings;
  private final ClusterCounts counts;
  private final Fixes fixes;

  /** What came of a reference. */
  enum Place {
    GOOD,
    /** Counted, but what it points to is something else as well. */
    TAKEN,
    /** Not counted: there is nothing that it could point to. */
    NOWHERE
  }

  References(
      ImageFile file, Geometry geometry, Findings findings, ClusterCounts counts, Fixes fixes) {
    this.file = file;
    this.geometry = geometry;
    this.findings = findings;
    this.counts = counts;
    this.fixes = fixes;
  }

  /**
   * Counts {@code times} references to each cluster that the bytes touch.
   *
   * @param from what refers to them, for the findings
   * @return whether they are in the file and can be what they are said to be
   */
  Place add(String from, long at, long bytes, ClusterUse use, int times) throws IOException {
    if (bytes == 0) {
      return Place.GOOD;
    }
    // As QEMU has it: the file may end inside the last cluster that is used.
    if (at < 0
        || bytes < 0
        || at + bytes < 0
        || at + bytes - geometry.clusterBytes() >= file.fileBytes()) {
      findings.corruption(
          "%s: %s at 0x%x, %d bytes, lies past the end of the file, 0x%x",
          from, use, at, bytes, file.fileBytes());
      return Place.NOWHERE;
    }
    Place place = Place.GOOD;
    long last = geometry.clusterOf(at + bytes - 1);
    for (long cluster = geometry.clusterOf(at); cluster <= last; cluster++) {
      @Nullable ClusterUse before = counts.add(cluster, use, times);
      if (before != null) {
        place = Place.TAKEN;
        fixes.overlap(cluster, before, use);
        findings.corruption(
            "%s: %s overlaps %s in cluster %d (0x%x)",
            from, use, before, cluster, geometry.offsetOf(cluster));
      }
    }
    return place;
  }

  /**
   * Counts as {@link #add} does if there is nothing to find.
   *
   * @return false if nothing was counted, because there is
   */
  boolean addPlain(long at, int bytes, ClusterUse use, int times) throws IOException {
    if (at + bytes - geometry.clusterBytes() >= file.fileBytes()) {
      return false;
    }
    long first = geometry.clusterOf(at);
    long last = geometry.clusterOf(at + bytes - 1);
    for (long cluster = first; cluster <= last; cluster++) {
      if (!counts.mayBe(cluster, use)) {
        return false;
      }
    }
    for (long cluster = first; cluster <= last; cluster++) {
      counts.add(cluster, use, times);
    }
    return true;
  }

  /** Like {@link #add}, for what must begin at a cluster's start and not at the file's. */
  Place addAligned(String from, long at, long bytes, ClusterUse use, int times) throws IOException {
    if (at == 0 || geometry.inCluster(at) != 0) {
      findings.corruption(
          "%s: %s at 0x%x, expected a multiple of %d, not 0",
          from, use, at, geometry.clusterBytes());
      return Place.NOWHERE;
    }
    return add(from, at, bytes, use, times);
  }
}
