package io.qnbd.image.codec;

import java.nio.ByteBuffer;
import java.util.zip.DataFormatException;

/**
 * One way to compress clusters. What compressing costs is done on the calling thread, under no
 * lock, and any number of threads may do it at a time. Buffers are direct.
 *
 * <p>Bounded whatever the bytes are: nothing is read but {@code compressed}, nothing is written but
 * {@code cluster}, and no memory is taken that a stream asks for.
 */
public interface ClusterCodec extends AutoCloseable {
  /**
   * Fills {@code cluster} from its position to its limit, and no further, from {@code compressed};
   * what follows the stream is not read.
   *
   * @throws DataFormatException when the stream is damaged or ends before the cluster is full
   */
  void decompress(ByteBuffer compressed, ByteBuffer cluster) throws DataFormatException;

  /**
   * Compresses what remains in {@code cluster} to where {@code compressed} stands.
   *
   * @return whether the stream fits into what remains of {@code compressed}; if not, nothing that
   *     was put there means anything
   */
  boolean compress(ByteBuffer cluster, ByteBuffer compressed);

  /** Gives back memory outside of Java's heap. Nobody uses the codec any more. */
  @Override
  void close();

  /** Raw deflate, by the fastest means that this machine has. */
  static ClusterCodec deflate() {
    return new LateCodec(() -> {
      Libdeflate library = Libdeflate.LOADED;
      DeflateCodec plain = new DeflateCodec();
      return library == null ? plain : new LibdeflateCodec(library, plain);
    });
  }
}
