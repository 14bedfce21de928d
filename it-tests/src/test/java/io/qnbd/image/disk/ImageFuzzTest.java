package io.qnbd.image.disk;

import com.code_intelligence.jazzer.junit.FuzzTest;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.codec.ClusterCodec;
import io.qnbd.image.codec.ZstdCodec;
import io.qnbd.image.crypt.LuksHeader;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.zip.DataFormatException;

/**
 * Images, compressed clusters and LUKS headers that a fuzzer makes up. In the usual build these are
 * tests over the seeds beside them; docs/security.md says how to let the fuzzer search.
 */
final class ImageFuzzTest {
  private static final int IMAGE_BYTES_MAX = 128 << 10;
  private static final int CLUSTER_BYTES = 4096;
  private static final byte[] BASE = Pattern.fill(7, 20_000);

  /** What the guest does with the image follows from its bytes. */
  @FuzzTest
  void imageDoesNoHarm(byte[] bytes) throws IOException {
    if (bytes.length > 0 && bytes.length <= IMAGE_BYTES_MAX) {
      SeededRandom random = new SeededRandom(Arrays.hashCode(bytes));
      new Trial(random, MemoryStorage.of(bytes), new MemoryStorage(), BASE).run();
    }
  }

  @FuzzTest
  void deflatedClusterIsUnpackedOrRefused(byte[] stream) {
    try (ClusterCodec codec = ClusterCodec.deflate()) {
      unpack(codec, stream);
    }
  }

  @FuzzTest
  void zstdClusterIsUnpackedOrRefused(byte[] stream) throws UnsupportedImageException {
    try (ClusterCodec codec = ZstdCodec.load("fuzzed")) {
      unpack(codec, stream);
    }
  }

  private static void unpack(ClusterCodec codec, byte[] stream) {
    ByteBuffer compressed = ByteBuffer.allocateDirect(stream.length).put(stream).flip();
    try {
      codec.decompress(compressed, ByteBuffer.allocateDirect(CLUSTER_BYTES));
    } catch (DataFormatException _) {
      // refused
    }
  }

  @FuzzTest
  void luksHeaderIsReadOrRefused(byte[] bytes) {
    ByteBuffer header = ByteBuffer.wrap(Arrays.copyOf(bytes, LuksHeader.BYTES));
    try {
      LuksHeader.parse("fuzzed", header, 1 << 20);
    } catch (CorruptImageException | UnsupportedImageException _) {
      // refused
    }
  }
}
