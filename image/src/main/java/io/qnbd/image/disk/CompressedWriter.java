package io.qnbd.image.disk;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.L2Entry;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Writes guest clusters in compressed form.
 *
 * <p>In two steps: {@link #compress} needs no lock and does the work, {@link #write} places the
 * stream. Order within the second: counts rise in memory, the stream reaches the file, the entry is
 * set in memory. A commit that comes between finds no entry; one that comes after writes the counts
 * and syncs before it writes the entry.
 *
 * <p>Thread-safe; the caller holds the range lock as each method says.
 */
final class CompressedWriter {
  private final Layers layers;

  CompressedWriter(Layers layers) {
    this.layers = layers;
  }

  /**
   * Compresses a cluster, or the beginning of one that goes on with zeroes. Nothing need be held.
   *
   * @return the stream, in memory that belongs to the thread until it next compresses or
   *     decompresses; empty if it does not get smaller than a cluster
   */
  ByteBuffer compress(ByteBuffer source) {
    int clusterBytes = layers.geometry().clusterBytes();
    ByteBuffer scratch = layers.scratch().decoded();
    ByteBuffer cluster = source.slice();
    if (cluster.remaining() < clusterBytes || !cluster.isDirect()) {
      ByteBuffer padded = scratch.slice(0, clusterBytes);
      padded.put(cluster);
      Zeroes.fill(padded, padded.remaining());
      cluster = padded.flip();
    }
    ByteBuffer stream = scratch.slice(clusterBytes, clusterBytes - 1);
    boolean fits = layers.codec().compress(cluster, stream);
    return fits ? stream.flip() : stream.limit(0);
  }

  /**
   * Gives the cluster this stream instead of what it had. The caller holds it exclusively.
   *
   * @return false, with nothing changed, if an entry can't name a place so far back in the file
   */
  boolean write(long cluster, ByteBuffer stream) throws IOException {
    Geometry geometry = layers.geometry();
    int bytes = stream.remaining();
    long at;
    layers.metadata().lock();
    try {
      layers.map().prepare(cluster);
      at = layers.allocator().allocateStream(bytes);
    } finally {
      layers.metadata().unlock();
    }
    boolean done = false;
    try {
      if (at >= L2Entry.compressedOffsetEnd(geometry.clusterBits())) {
        return false;
      }
      layers.file().write(at, stream);
      assign(cluster, at, bytes);
      done = true;
      return true;
    } finally {
      if (!done) {
        giveBack(at, bytes);
      }
    }
  }

  private void assign(long cluster, long at, int bytes) throws IOException {
    layers.metadata().lock();
    try {
      layers.map().assignCompressed(cluster, at, bytes);
    } finally {
      layers.metadata().unlock();
    }
  }

  private void giveBack(long at, int bytes) {
    layers.metadata().lock();
    try {
      layers.allocator().giveBackStream(at, bytes);
    } finally {
      layers.metadata().unlock();
    }
  }
}
