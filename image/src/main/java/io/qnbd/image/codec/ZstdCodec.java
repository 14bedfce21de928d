package io.qnbd.image.codec;

import com.github.luben.zstd.Zstd;
import com.github.luben.zstd.ZstdCompressCtx;
import com.github.luben.zstd.ZstdDecompressCtx;
import com.github.luben.zstd.ZstdException;
import com.github.luben.zstd.util.Native;
import io.qnbd.image.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.zip.DataFormatException;

/**
 * Zstandard (RFC 8878), as compressed clusters of type 1 hold it: one frame for each cluster,
 * complete, without a dictionary.
 *
 * <p>A frame is decompressed at once into the cluster, which serves as its window, so that the
 * window that the frame names costs nothing.
 *
 * <p>Thread-safe: each call takes a context that nobody else has, from those that earlier calls
 * have left.
 */
public final class ZstdCodec implements ClusterCodec {
  private final ConcurrentLinkedQueue<ZstdDecompressCtx> readers = new ConcurrentLinkedQueue<>();
  private final ConcurrentLinkedQueue<ZstdCompressCtx> writers = new ConcurrentLinkedQueue<>();

  private ZstdCodec() {}

  /**
   * Loads the native library, which comes with the program. It is loaded from the file that the
   * property {@code ZstdNativePath} names, as the archive and the container image do; otherwise it
   * is unpacked into the directory for temporary files first.
   *
   * @throws UnsupportedImageException when that does not work here
   */
  public static ZstdCodec load(String fileName) throws UnsupportedImageException {
    try {
      Native.load();
    } catch (LinkageError e) {
      throw new UnsupportedImageException(
          fileName
              + ": its clusters are compressed with zstd, whose library can't be loaded ("
              + String.valueOf(e.getMessage()).lines().findFirst().orElse("no reason given")
              + "); it needs a writable directory for temporary files: name one with"
              + " QNBD_JAVA_OPTS=-Djava.io.tmpdir=DIRECTORY");
    }
    return new ZstdCodec();
  }

  @Override
  public void decompress(ByteBuffer compressed, ByteBuffer cluster) throws DataFormatException {
    long frameBytes =
        Zstd.findDirectByteBufferFrameCompressedSize(
            compressed, compressed.position(), compressed.remaining());
    if (Zstd.isError(frameBytes)) {
      throw new DataFormatException("no whole zstd frame: " + Zstd.getErrorName(frameBytes));
    }
    ZstdDecompressCtx left = readers.poll();
    ZstdDecompressCtx reader = left == null ? new ZstdDecompressCtx() : left;
    try {
      int filled =
          reader.decompressDirectByteBuffer(
              cluster,
              cluster.position(),
              cluster.remaining(),
              compressed,
              compressed.position(),
              (int) frameBytes);
      if (filled < cluster.remaining()) {
        throw new DataFormatException(
            "the frame ends with %d bytes of the cluster missing"
                .formatted(cluster.remaining() - filled));
      }
    } catch (ZstdException e) {
      throw new DataFormatException(e.getMessage());
    } finally {
      readers.add(reader);
    }
    compressed.position(compressed.position() + (int) frameBytes);
    cluster.position(cluster.limit());
  }

  @Override
  public boolean compress(ByteBuffer cluster, ByteBuffer compressed) {
    ZstdCompressCtx left = writers.poll();
    ZstdCompressCtx writer = left == null ? new ZstdCompressCtx() : left;
    try {
      int bytes =
          writer.compressDirectByteBuffer(
              compressed,
              compressed.position(),
              compressed.remaining(),
              cluster,
              cluster.position(),
              cluster.remaining());
      compressed.position(compressed.position() + bytes);
      return true;
    } catch (ZstdException e) {
      if (e.getErrorCode() != Zstd.errDstSizeTooSmall()) {
        throw new AssertionError(e);
      }
      return false;
    } finally {
      writers.add(writer);
    }
  }

  @Override
  public void close() {
    for (ZstdDecompressCtx r = readers.poll(); r != null; r = readers.poll()) {
      r.close();
    }
    for (ZstdCompressCtx w = writers.poll(); w != null; w = writers.poll()) {
      w.close();
    }
  }
}
