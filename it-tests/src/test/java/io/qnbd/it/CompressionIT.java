package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.OpenOptions;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Compressed images that QEMU made are read here, and those made here are read by QEMU. */
@Timeout(300)
final class CompressionIT {
  /** Odd on purpose: the last cluster is not whole. */
  private static final int DISK_BYTES = (24 << 20) + 3 * 512;

  /** Numbers as text, with noise and nothing at all in between. */
  private static byte[] disk(long seed) throws IOException {
    Random random = new Random(seed);
    ByteArrayOutputStream text = new ByteArrayOutputStream(DISK_BYTES + 100_000);
    while (text.size() < DISK_BYTES) {
      int kind = random.nextInt(10);
      int bytes = random.nextInt(100_000);
      if (kind == 0) {
        text.write(new byte[bytes]);
      } else if (kind == 1) {
        byte[] noise = new byte[bytes];
        random.nextBytes(noise);
        text.write(noise);
      } else {
        for (int end = text.size() + bytes; text.size() < end; ) {
          text.write(number(random));
          text.write(random.nextInt(30) == 0 ? '\n' : ' ');
        }
      }
    }
    return Arrays.copyOf(text.toByteArray(), DISK_BYTES);
  }

  private static byte[] number(Random random) {
    long number = random.nextLong(1L << random.nextInt(1, 60));
    return Long.toString(number).getBytes(StandardCharsets.US_ASCII);
  }

  /** Clean, and most of its clusters are compressed. */
  private static void requireCompressed(Path image) {
    String found = Shell.check("qemu-img", "check", image.toString());
    assertTrue(found.matches("(?s).*, (100|[5-9][0-9])\\.[0-9]+% compressed clusters.*"), found);
  }

  @ParameterizedTest
  @CsvSource({"zlib, 64k", "zlib, 4k", "zlib, 2M", "zstd, 64k", "zstd, 4k", "zstd, 2M"})
  void readsWhatQemuCompressed(String type, String clusterSize) throws IOException {
    try (Images images = Images.inMemory()) {
      byte[] disk = disk(type.hashCode() + clusterSize.hashCode());
      Path raw = Files.write(images.path("plain.raw"), disk);
      Path image =
          images.qcow2From(
              "disk.qcow2", raw, "compression_type=" + type, "cluster_size=" + clusterSize);
      requireCompressed(image);
      Path copy = images.path("copy.raw");
      try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
        Shell.check("nbdcopy", qnbd.uri().toString(), copy.toString());
      }
      assertArrayEquals(disk, Files.readAllBytes(copy));
    }
  }

  @ParameterizedTest
  @CsvSource({"zlib, 64k, 16", "zlib, 4k, 2", "zlib, 2M, 64", "zstd, 64k, 1", "zstd, 2M, 16"})
  void qemuReadsWhatIsCompressedHere(String type, String clusterSize, int refcountBits)
      throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.path("disk.qcow2");
      QnbdProcess.run(
              "create",
              "--compression-type",
              type,
              "-o",
              "cluster_size=" + clusterSize + ",refcount_bits=" + refcountBits,
              image.toString(),
              Integer.toString(DISK_BYTES))
          .mustExit(0);
      String info = Shell.check("qemu-img", "info", image.toString());
      assertTrue(info.contains("compression type: " + type), info);
      byte[] disk = disk(type.hashCode() - clusterSize.hashCode());
      try (DiskImage open = DiskImages.open(image, OpenOptions.DEFAULT)) {
        int cluster = open.clusterBytes();
        for (int at = 0; at < DISK_BYTES; at += cluster) {
          int bytes = Math.min(cluster, DISK_BYTES - at);
          open.writeCompressed(at, ByteBuffer.wrap(disk, at, bytes));
        }
      }
      requireCompressed(image);
      assertArrayEquals(disk, images.contents(image));
      // What a guest writes replaces compressed clusters, in QEMU as here.
      Arrays.fill(disk, 100_000, 400_000, (byte) 7);
      Arrays.fill(disk, 4 << 20, 8 << 20, (byte) 0);
      Shell.check("qemu-io", "-c", "write -P 7 100000 200000", image.toString());
      try (DiskImage open = DiskImages.open(image, OpenOptions.DEFAULT)) {
        byte[] sevens = new byte[100_000];
        Arrays.fill(sevens, (byte) 7);
        open.write(300_000, ByteBuffer.wrap(sevens));
        open.trim(4 << 20, 4 << 20);
      }
      Shell.check("qemu-img", "check", image.toString());
      assertArrayEquals(disk, images.contents(image));
      assertEquals(0, Shell.run("qemu-img", "check", image.toString()).exit());
    }
  }
}
