package io.qnbd.image.disk;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.zip.DataFormatException;

/**
 * Reads guest bytes from wherever they are. The caller holds the range lock of the clusters read,
 * shared at least, so that none of them is freed under the read. Thread-safe.
 */
final class GuestReader {
  private final Layers layers;

  GuestReader(Layers layers) {
    this.layers = layers;
  }

  /** Fills {@code target}; {@code offset} may reach to the end of the last cluster. */
  void read(long offset, ByteBuffer target) throws IOException {
    read(offset, target, ZeroParts.FILLED);
  }

  /** The same, but for what is done with zeroes. */
  void read(long offset, ByteBuffer target, ZeroParts zeroes) throws IOException {
    for (long at = offset; target.hasRemaining(); ) {
      Mapping mapping = lookup(at, target.remaining());
      int end = target.limit();
      target.limit((int) (target.position() + mapping.bytes()));
      switch (mapping) {
        case Mapping.Data data -> readData(data.hostOffset(), target, zeroes);
        case Mapping.Zeros _ -> zeroes.zeroes(target);
        case Mapping.Unallocated _ -> readBacking(at, target, zeroes);
        case Mapping.Compressed compressed -> readCompressed(compressed, at, target);
      }
      target.limit(end);
      at += mapping.bytes();
    }
  }

  Mapping lookup(long offset, long bytesMax) throws IOException {
    layers.metadata().lock();
    try {
      return layers.map().lookup(offset, bytesMax);
    } finally {
      layers.metadata().unlock();
    }
  }

  /** The last cluster of a file may be shorter than a cluster; the rest reads as zeroes. */
  private void readData(long hostOffset, ByteBuffer target, ZeroParts zeroes) throws IOException {
    layers.file().read(hostOffset, target);
    zeroes.zeroes(target);
  }

  private void readBacking(long offset, ByteBuffer target, ZeroParts zeroes) throws IOException {
    DiskImage backing = layers.backing();
    if (backing != null && offset < backing.virtualBytes()) {
      int end = target.limit();
      long there = Math.min(target.remaining(), backing.virtualBytes() - offset);
      target.limit((int) (target.position() + there));
      zeroes.readBelow(backing, offset, target);
      target.limit(end);
    }
    zeroes.zeroes(target);
  }

  private void readCompressed(Mapping.Compressed compressed, long offset, ByteBuffer target)
      throws IOException {
    int clusterBytes = layers.geometry().clusterBytes();
    ByteBuffer scratch = layers.scratch().decoded();
    ByteBuffer stream = scratch.slice(clusterBytes, compressed.compressedBytes());
    layers.file().read(compressed.hostOffset(), stream);
    ByteBuffer cluster = scratch.slice(0, clusterBytes);
    try {
      layers.codec().decompress(stream.flip(), cluster);
    } catch (DataFormatException e) {
      throw new CorruptImageException(
          String.format(
              "%s: the compressed cluster at 0x%x (guest offset 0x%x) is damaged: %s",
              layers.file().name(), compressed.hostOffset(), offset, e.getMessage()));
    }
    target.put(cluster.slice(layers.geometry().inCluster(offset), target.remaining()));
  }
}
