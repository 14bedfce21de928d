package io.qnbd.image.codec;

import java.nio.ByteBuffer;
import java.util.function.Supplier;
import java.util.zip.DataFormatException;
import org.jspecify.annotations.Nullable;

/**
 * A codec that is made when the first cluster wants it: linking to a native library takes Java some
 * 40 ms, and most images have no compressed cluster.
 *
 * <p>Thread-safe.
 */
final class LateCodec implements ClusterCodec {
  private final Supplier<ClusterCodec> maker;
  private volatile @Nullable ClusterCodec made;

  LateCodec(Supplier<ClusterCodec> maker) {
    this.maker = maker;
  }

  @Override
  public void decompress(ByteBuffer compressed, ByteBuffer cluster) throws DataFormatException {
    codec().decompress(compressed, cluster);
  }

  @Override
  public boolean compress(ByteBuffer cluster, ByteBuffer compressed) {
    return codec().compress(cluster, compressed);
  }

  private ClusterCodec codec() {
    ClusterCodec codec = made;
    if (codec == null) {
      synchronized (this) {
        codec = made;
        if (codec == null) {
          codec = maker.get();
          made = codec;
        }
      }
    }
    return codec;
  }

  @Override
  public void close() {
    ClusterCodec codec = made;
    if (codec != null) {
      codec.close();
    }
  }
}
