package io.qnbd.image.disk;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.crypt.SectorCipher;
import io.qnbd.image.mapping.Mapping;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.zip.DataFormatException;

/**
 * Reads guest bytes from wherever they are. The caller holds the range lock of the clusters read,
 * shared at least, so that none of them is freed under the read. Thread-safe.
 */
final class GuestReader {
  /** Parts of a request that are decompressed at a time: bounds what a long one takes. */
  private static final int PARTS_MAX = 256;

  /** With less to do, a thread that helps costs more than it brings. */
  private static final long PARALLEL_BYTES_MIN = 128 << 10;

  /** What of one compressed cluster, from {@code offset} on, goes to {@code target}. */
  private record Part(ClusterCache.Stream stream, long offset, ByteBuffer target) {}

  private final Layers layers;
  private final AtomicInteger decompressing = new AtomicInteger();

  GuestReader(Layers layers) {
    this.layers = layers;
  }

  /** Fills {@code target}; {@code offset} may reach to the end of the last cluster. */
  void read(long offset, ByteBuffer target) throws IOException {
    read(offset, target, ZeroParts.FILLED);
  }

  /**
   * The same, but for what is done with zeroes.
   *
   * @return whether any of it was compressed
   */
  boolean read(long offset, ByteBuffer target, ZeroParts zeroes) throws IOException {
    boolean anyCompressed = false;
    List<Part> parts = List.of();
    for (long at = offset; target.hasRemaining(); ) {
      Mapping mapping = lookup(at, target.remaining());
      int end = target.limit();
      target.limit((int) (target.position() + mapping.bytes()));
      switch (mapping) {
        case Mapping.Data data -> readData(at, data.hostOffset(), target, zeroes);
        case Mapping.Zeros _ -> zeroes.zeroes(target);
        case Mapping.Unallocated _ -> readBacking(at, target, zeroes);
        case Mapping.Compressed compressed -> {
          parts = anyCompressed ? parts : new ArrayList<>();
          anyCompressed = true;
          parts.add(new Part(streamOf(compressed), at, target.slice()));
          target.position(target.limit());
        }
      }
      target.limit(end);
      at += mapping.bytes();
      if (parts.size() == PARTS_MAX) {
        decompress(parts);
        parts.clear();
      }
    }
    if (!parts.isEmpty()) {
      decompress(parts);
    }
    return anyCompressed;
  }

  Mapping lookup(long offset, long bytesMax) throws IOException {
    layers.metadata().lock();
    try {
      return layers.map().lookup(offset, bytesMax);
    } finally {
      layers.metadata().unlock();
    }
  }

  /** The same for somebody who may write where it says, if that is in place. */
  Mapping lookupToWrite(long offset, long bytesMax) throws IOException {
    layers.metadata().lock();
    try {
      return layers.map().lookupToWrite(offset, bytesMax);
    } finally {
      layers.metadata().unlock();
    }
  }

  /** The last cluster of a file may be shorter than a cluster; the rest reads as zeroes. */
  private void readData(long offset, long hostOffset, ByteBuffer target, ZeroParts zeroes)
      throws IOException {
    EncryptedStorage numberedByGuest = layers.numberedByGuest();
    if (numberedByGuest == null) {
      layers.data().read(hostOffset, target);
    } else {
      numberedByGuest.read(hostOffset, offset / SectorCipher.SECTOR_BYTES, target);
    }
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

  // ---- compressed clusters

  /** How many threads decompress now, for somebody who waits. */
  int decompressing() {
    return decompressing.get();
  }

  /** Decompresses all parts, on several threads where there is enough for them to do. */
  private void decompress(List<Part> parts) throws IOException {
    decompressing.incrementAndGet();
    try {
      if (parts.size() * (long) layers.geometry().clusterBytes() < PARALLEL_BYTES_MIN) {
        for (Part part : parts) {
          decompress(part);
        }
      } else {
        Spare.runAll(parts.size(), index -> decompress(parts.get(index)));
      }
    } finally {
      decompressing.decrementAndGet();
    }
  }

  /**
   * A whole cluster is decompressed to where it is wanted, unless it is in the cache; a part of one
   * through the cache, since the next part is likely to be asked for next.
   */
  private void decompress(Part part) throws IOException {
    ByteBuffer target = part.target();
    ClusterCache.Stream stream = part.stream();
    int clusterBytes = layers.geometry().clusterBytes();
    if (target.remaining() == clusterBytes && target.isDirect()) {
      if (!layers.cache().readKnown(stream, 0, target)) {
        load(stream, part.offset(), target);
      }
      return;
    }
    int from = layers.geometry().inCluster(part.offset());
    if (!layers
        .cache()
        .read(stream, from, target, cluster -> load(stream, part.offset(), cluster))) {
      ByteBuffer cluster = layers.scratch().decoded().slice(0, clusterBytes);
      load(stream, part.offset(), cluster);
      target.put(cluster.slice(from, target.remaining()));
    }
  }

  /** Has the cache hold a cluster that is likely to be asked for. */
  void prepare(Mapping.Compressed compressed, long offset) throws IOException {
    ClusterCache.Stream stream = streamOf(compressed);
    layers.cache().prepare(stream, cluster -> load(stream, offset, cluster));
  }

  static ClusterCache.Stream streamOf(Mapping.Compressed compressed) {
    return new ClusterCache.Stream(compressed.hostOffset(), compressed.compressedBytes());
  }

  /** Decompresses a stream; {@code cluster} may lie at the start of this thread's buffer. */
  private void load(ClusterCache.Stream stream, long offset, ByteBuffer cluster)
      throws IOException {
    ByteBuffer compressed =
        layers.scratch().decoded().slice(layers.geometry().clusterBytes(), stream.bytes());
    layers.file().read(stream.hostOffset(), compressed);
    try {
      layers.codec().decompress(compressed.flip(), cluster);
    } catch (DataFormatException e) {
      throw new CorruptImageException(
          String.format(
              "%s: the compressed cluster at 0x%x (guest offset 0x%x) is damaged: %s",
              layers.file().name(), stream.hostOffset(), offset, e.getMessage()));
    }
  }
}
