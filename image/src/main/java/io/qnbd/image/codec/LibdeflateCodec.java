package io.qnbd.image.codec;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.zip.DataFormatException;

/**
 * Raw deflate by libdeflate. What it can't make a cluster of goes to the JDK's zlib, which takes
 * streams that are longer than a cluster, and finds words for what is wrong.
 *
 * <p>Thread-safe: each call takes memory that nobody else has, from what earlier calls have left.
 */
final class LibdeflateCodec implements ClusterCodec {
  private final Libdeflate library;
  private final DeflateCodec plain;
  private final ConcurrentLinkedQueue<MemorySegment> decompressors = new ConcurrentLinkedQueue<>();
  private final ConcurrentLinkedQueue<MemorySegment> compressors = new ConcurrentLinkedQueue<>();

  /** Takes over {@code plain}. */
  LibdeflateCodec(Libdeflate library, DeflateCodec plain) {
    this.library = library;
    this.plain = plain;
  }

  @Override
  public void decompress(ByteBuffer compressed, ByteBuffer cluster) throws DataFormatException {
    MemorySegment left = decompressors.poll();
    MemorySegment decompressor = left == null ? library.newDecompressor() : left;
    boolean done = library.decompress(decompressor, compressed, cluster);
    decompressors.add(decompressor);
    if (done) {
      cluster.position(cluster.limit());
    } else {
      plain.decompress(compressed, cluster);
    }
  }

  @Override
  public boolean compress(ByteBuffer cluster, ByteBuffer compressed) {
    MemorySegment left = compressors.poll();
    MemorySegment compressor = left == null ? library.newCompressor() : left;
    int bytes = library.compress(compressor, cluster, compressed);
    compressors.add(compressor);
    compressed.position(compressed.position() + bytes);
    return bytes > 0;
  }

  @Override
  public void close() {
    for (MemorySegment d = decompressors.poll(); d != null; d = decompressors.poll()) {
      library.freeDecompressor(d);
    }
    for (MemorySegment c = compressors.poll(); c != null; c = compressors.poll()) {
      library.freeCompressor(c);
    }
    plain.close();
  }
}
