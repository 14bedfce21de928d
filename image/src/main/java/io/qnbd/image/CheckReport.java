package io.qnbd.image;

import java.util.List;

/**
 * What a check of an image found.
 *
 * @param corruptions things that put data in danger
 * @param leaks clusters that are counted as used but referenced by nothing: wasted space, no danger
 * @param findings one sentence for each of the first {@value #FINDINGS_MAX} things found
 * @param imageEndOffset the byte after the last cluster in use, in the host's file
 * @param totalClusters guest clusters of the virtual disk
 * @param allocatedClusters guest clusters that have bytes of their own in the image
 * @param compressedClusters those of them that are compressed
 */
public record CheckReport(
    long corruptions,
    long leaks,
    List<String> findings,
    long imageEndOffset,
    long totalClusters,
    long allocatedClusters,
    long compressedClusters) {

  /** Enough to see what is wrong; a badly damaged image has millions. */
  public static final int FINDINGS_MAX = 1000;

  public CheckReport {
    findings = List.copyOf(findings);
  }

  public boolean clean() {
    return corruptions == 0 && leaks == 0;
  }
}
