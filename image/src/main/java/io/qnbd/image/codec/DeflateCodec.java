package io.qnbd.image.codec;

import java.nio.ByteBuffer;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.zip.DataFormatException;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/**
 * Raw deflate streams (RFC 1951, no zlib header), as compressed clusters of type 0 hold them (qcow2
 * specification, "Compressed Clusters Descriptor").
 *
 * <p>Thread-safe: each call takes an inflater or deflater that nobody else has, from those that
 * earlier calls have left, so there are as many as there were calls at a time.
 */
public final class DeflateCodec implements ClusterCodec {
  private final ConcurrentLinkedQueue<Inflater> inflaters = new ConcurrentLinkedQueue<>();
  private final ConcurrentLinkedQueue<Deflater> deflaters = new ConcurrentLinkedQueue<>();

  @Override
  public void decompress(ByteBuffer compressed, ByteBuffer cluster) throws DataFormatException {
    Inflater left = inflaters.poll();
    Inflater inflater = left == null ? new Inflater(true) : left;
    try {
      inflater.setInput(compressed);
      while (cluster.hasRemaining()) {
        int before = cluster.position();
        inflater.inflate(cluster);
        if (cluster.position() == before) {
          throw new DataFormatException(
              "the stream ends with " + cluster.remaining() + " bytes of the cluster missing");
        }
      }
    } finally {
      inflater.reset();
      inflaters.add(inflater);
    }
  }

  @Override
  public boolean compress(ByteBuffer cluster, ByteBuffer compressed) {
    Deflater left = deflaters.poll();
    Deflater deflater = left == null ? new Deflater(Deflater.DEFAULT_COMPRESSION, true) : left;
    try {
      deflater.setInput(cluster);
      deflater.finish();
      while (compressed.hasRemaining() && !deflater.finished()) {
        deflater.deflate(compressed);
      }
      return deflater.finished();
    } finally {
      deflater.reset();
      deflaters.add(deflater);
    }
  }

  @Override
  public void close() {
    for (Inflater inflater = inflaters.poll(); inflater != null; inflater = inflaters.poll()) {
      inflater.end();
    }
    for (Deflater deflater = deflaters.poll(); deflater != null; deflater = deflaters.poll()) {
      deflater.end();
    }
  }
}
