package io.qnbd.image.disk;

import io.qnbd.image.ProgressListener;
import io.qnbd.image.format.Geometry;
import io.qnbd.image.mapping.ClusterMap.Dropped;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;

/**
 * Makes an image do without clusters that are marked as zeroes, for version 2 of the format, which
 * does not know them: where nothing lies below they are unmapped, elsewhere zeroes are written. The
 * disk reads the same all the time. Nobody else uses the image, so no ranges are held.
 *
 * <p>Not for images with subclusters or a data file, which version 2 does not know either.
 */
final class ZeroExpansion {
  private final Qcow2Image image;
  private final Layers layers;
  private final GuestReader reader;
  private final ZeroWriter zeroes;

  ZeroExpansion(Qcow2Image image, Layers layers, GuestReader reader, ZeroWriter zeroes) {
    this.image = image;
    this.layers = layers;
    this.reader = reader;
    this.zeroes = zeroes;
  }

  /**
   * Goes over the whole disk.
   *
   * @param afterChange keeps what waits for a commit within its bounds
   */
  void run(Growth.Step afterChange, ProgressListener progress) throws IOException {
    Geometry geometry = layers.geometry();
    long size = image.virtualBytes();
    for (long at = 0; at < size; ) {
      Mapping mapping = reader.lookup(at, size - at);
      long next = Math.min(size, at + mapping.bytes());
      if (mapping instanceof Mapping.Zeros) {
        long cluster = geometry.clusterOf(at);
        long inTable = (long) geometry.l2Entries() - geometry.l2Index(cluster);
        next = Math.min(next, geometry.offsetOf(cluster + inTable));
        if (zeroes.nothingBelow(cluster)) {
          zeroes.drop(cluster, geometry.clustersFor(next - at), Dropped.UNMAPPED);
          afterChange.run();
        } else {
          next = Math.min(next, at + Zeroes.blockBytes());
          image.write(at, Zeroes.buffer((int) (next - at)));
        }
      }
      at = next;
      progress.progress("writing zeroes", at, size);
    }
  }
}
