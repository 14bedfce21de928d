package io.qnbd.image.codec;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.github.luben.zstd.Zstd;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.stream.Stream;
import java.util.zip.DataFormatException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** What the codecs make of good streams, bad ones and those that were made to do harm. */
final class ClusterCodecTest {
  private static final int CLUSTER = 65536;

  /** The ways to compress; libdeflate where the machine has it. */
  enum Way {
    JDK,
    LIBDEFLATE,
    ZSTD;

    ClusterCodec open() throws UnsupportedImageException {
      return switch (this) {
        case JDK -> new DeflateCodec();
        case LIBDEFLATE -> ClusterCodec.deflate();
        case ZSTD -> ZstdCodec.load("test");
      };
    }
  }

  /** Text-like bytes: they compress to a third or so. */
  private static byte[] text(SeededRandom random, int count) {
    byte[] words = random.bytes(4096);
    byte[] text = new byte[count];
    for (int at = 0; at < count; ) {
      int length = Math.min(random.between(3, 40), count - at);
      System.arraycopy(words, random.below(words.length - 40), text, at, length);
      at += length;
    }
    return text;
  }

  private static ByteBuffer direct(byte[] bytes) {
    return ByteBuffer.allocateDirect(bytes.length).put(bytes).flip();
  }

  private static byte[] bytes(ByteBuffer buffer) {
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return bytes;
  }

  private static ByteBuffer compressed(ClusterCodec codec, byte[] cluster) {
    ByteBuffer stream = ByteBuffer.allocateDirect(2 * CLUSTER);
    assertTrue(codec.compress(direct(cluster), stream));
    return stream.flip();
  }

  @ParameterizedTest
  @EnumSource
  void readsBackWhatItWroteWhateverFollows(Way way) throws Exception {
    SeededRandom random = new SeededRandom(1);
    try (ClusterCodec codec = way.open()) {
      for (int size : new int[] {512, 4096, CLUSTER, 2 << 20}) {
        byte[] cluster = text(random, size);
        ByteBuffer stream = ByteBuffer.allocateDirect(size + 1000);
        stream.position(7);
        assertTrue(codec.compress(direct(cluster), stream));
        stream.put(random.bytes(500)).flip().position(7);
        ByteBuffer back = ByteBuffer.allocateDirect(size + 20).position(11).limit(size + 11);
        codec.decompress(stream, back);
        assertEquals(0, back.remaining());
        assertTrue(Arrays.equals(cluster, bytes(back.position(11))));
        assertEquals(0, back.limit(size + 20).getLong(size + 12), "what lies behind the cluster");
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void saysWhatDoesNotFit(Way way) throws Exception {
    byte[] noise = new SeededRandom(2).bytes(CLUSTER);
    try (ClusterCodec codec = way.open()) {
      for (int room : new int[] {0, 1, 100, CLUSTER - 1}) {
        assertFalse(codec.compress(direct(noise), ByteBuffer.allocateDirect(room)));
      }
      byte[] cluster = text(new SeededRandom(3), CLUSTER);
      int bytes = compressed(codec, cluster).remaining();
      assertTrue(codec.compress(direct(cluster), ByteBuffer.allocateDirect(bytes + 100)));
    }
  }

  @ParameterizedTest
  @EnumSource
  void refusesStreamsThatEndEarly(Way way) throws Exception {
    byte[] cluster = text(new SeededRandom(4), CLUSTER);
    try (ClusterCodec codec = way.open()) {
      ByteBuffer stream = compressed(codec, cluster);
      int bytes = stream.limit();
      for (int cut : new int[] {0, 1, 5, 100, bytes / 2, bytes - 10}) {
        ByteBuffer back = ByteBuffer.allocateDirect(CLUSTER);
        assertThrows(DataFormatException.class, () -> codec.decompress(stream.slice(0, cut), back));
      }
      ByteBuffer larger = ByteBuffer.allocateDirect(CLUSTER + 1);
      assertThrows(DataFormatException.class, () -> codec.decompress(stream, larger));
    }
  }

  /** A stream of a gigabyte in a few kilobytes: no more than the cluster is ever written. */
  @ParameterizedTest
  @EnumSource
  void aBombFillsOneClusterAtMost(Way way) throws Exception {
    try (ClusterCodec codec = way.open()) {
      int size = 16 << 20;
      ByteBuffer stream = ByteBuffer.allocateDirect(CLUSTER);
      assertTrue(codec.compress(ByteBuffer.allocateDirect(size), stream));
      stream.flip();
      ByteBuffer cluster = ByteBuffer.allocateDirect(CLUSTER + 8).limit(CLUSTER);
      while (cluster.hasRemaining()) {
        cluster.put((byte) 7);
      }
      cluster.limit(CLUSTER + 8).putLong(CLUSTER, 42).flip().limit(CLUSTER);
      if (way == Way.ZSTD) {
        assertThrows(DataFormatException.class, () -> codec.decompress(stream, cluster));
      } else {
        codec.decompress(stream, cluster);
        assertEquals(0, cluster.remaining());
      }
      assertEquals(42, cluster.limit(CLUSTER + 8).getLong(CLUSTER));
    }
  }

  /** A frame header that names a window of 2 GiB before one block of a repeated byte. */
  @Test
  void aZstdFrameThatWantsALargeWindowCostsNothing() throws Exception {
    ByteBuffer frame = ByteBuffer.allocateDirect(32).order(ByteOrder.LITTLE_ENDIAN);
    frame.putInt(0xfd2fb528).put((byte) 0).put((byte) (21 << 3)); // window: 2^(10 + 21)
    int block = 1 | 1 << 1 | CLUSTER << 3; // last, RLE, so many bytes
    frame.put((byte) block).put((byte) (block >> 8)).put((byte) (block >> 16)).put((byte) 9);
    ByteBuffer cluster = ByteBuffer.allocateDirect(CLUSTER);
    try (ClusterCodec codec = ZstdCodec.load("test")) {
      try {
        codec.decompress(frame.flip(), cluster);
        assertEquals(9, cluster.get(CLUSTER - 1));
      } catch (DataFormatException e) {
        assertTrue(String.valueOf(e.getMessage()).contains("window"), e.getMessage());
      }
    }
  }

  /** One frame for each cluster: neither two of half its size nor one that may be skipped. */
  @Test
  void aZstdClusterIsOneFrame() throws Exception {
    byte[] half = text(new SeededRandom(5), CLUSTER / 2);
    byte[] frame = Zstd.compress(half);
    byte[] two = Arrays.copyOf(frame, 2 * frame.length);
    System.arraycopy(frame, 0, two, frame.length, frame.length);
    byte[] skipped = Arrays.copyOf(new byte[] {0x50, 0x2a, 0x4d, 0x18, 16}, 24);
    try (ClusterCodec codec = ZstdCodec.load("test")) {
      for (byte[] stream : new byte[][] {two, skipped}) {
        ByteBuffer cluster = ByteBuffer.allocateDirect(CLUSTER);
        assertThrows(DataFormatException.class, () -> codec.decompress(direct(stream), cluster));
      }
    }
  }

  static Stream<Way> ways() {
    return Arrays.stream(Way.values());
  }

  /** Damaged streams give some cluster or an exception; an intact one reads well right after. */
  @ParameterizedTest
  @MethodSource("ways")
  void damagedStreamsHarmNobody(Way way) throws Exception {
    try (ClusterCodec codec = way.open()) {
      byte[] cluster = text(new SeededRandom(6), 8192);
      byte[] good = bytes(compressed(codec, cluster));
      Seeds.run(
          "ClusterCodecTest " + way,
          Seeds.count("qnbd.damaged", 2000),
          seed -> {
            SeededRandom random = new SeededRandom(seed);
            byte[] bad = Arrays.copyOf(good, good.length + random.below(64));
            for (int i = (int) random.skewed(1, 8); i > 0; i--) {
              bad[(int) random.skewed(0, bad.length - 1)] ^= (byte) (1 << random.below(8));
            }
            ByteBuffer guarded = ByteBuffer.allocateDirect(8192 + 8).putLong(8192, 42);
            try {
              codec.decompress(direct(bad), guarded.limit(8192));
              assertEquals(0, guarded.remaining());
            } catch (DataFormatException e) {
              assertFalse(String.valueOf(e.getMessage()).isEmpty());
            }
            assertEquals(42, guarded.limit(8200).getLong(8192), "what lies behind the cluster");
          });
      ByteBuffer back = ByteBuffer.allocateDirect(8192);
      codec.decompress(direct(good), back);
      assertTrue(Arrays.equals(cluster, bytes(back.flip())));
    }
  }
}
