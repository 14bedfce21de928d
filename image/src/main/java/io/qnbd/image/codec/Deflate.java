package io.qnbd.image.codec;

import java.nio.ByteBuffer;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;

/**
 * Raw deflate streams (RFC 1951, no zlib header), as compressed clusters of type 0 hold them (qcow2
 * specification, "Compressed Clusters Descriptor").
 */
public final class Deflate {
  private Deflate() {}

  /**
   * Fills {@code cluster} from its position to its limit, and no further, from {@code compressed};
   * what follows the stream is not read.
   *
   * @throws DataFormatException when the stream is damaged or ends before the cluster is full
   */
  public static void inflate(ByteBuffer compressed, ByteBuffer cluster) throws DataFormatException {
    Inflater inflater = new Inflater(true);
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
      inflater.end();
    }
  }
}
