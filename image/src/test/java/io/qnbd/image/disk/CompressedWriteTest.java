package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.check.Checker;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.raw.RawImage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Compressed clusters written by the engine: where they go, and what becomes of the place. */
final class CompressedWriteTest {
  private static final int CLUSTER = 4096;
  private static final int CLUSTERS = 256;
  private static final int DISK = CLUSTERS * CLUSTER;
  private static final SeededRandom NONE = new SeededRandom(1);

  /**
   * A third of each cluster is noise, so that three share a host cluster and every fourth is cut.
   */
  private static byte[] disk(long seed) {
    SeededRandom random = new SeededRandom(seed);
    byte[] disk = new byte[DISK];
    for (int at = 0; at < DISK; at += CLUSTER) {
      byte[] noise = random.bytes(1100 + random.below(200));
      System.arraycopy(noise, 0, disk, at, noise.length);
    }
    return disk;
  }

  private static void writeAll(DiskImage image, byte[] disk) throws IOException {
    for (int at = 0; at < disk.length; at += CLUSTER) {
      image.writeCompressed(at, ByteBuffer.wrap(disk, at, Math.min(CLUSTER, disk.length - at)));
    }
  }

  private static void requireClean(MemoryStorage file) throws IOException {
    RawQcow2.Findings findings = new RawQcow2(file).check();
    assertTrue(findings.clean(), findings::toString);
    CheckReport report = Checker.check(file);
    assertTrue(report.clean(), () -> "the engine's own check: " + report.findings());
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 4, 8, 16, 32, 64})
  void shareHostClustersAsFarAsTheirCountsGo(int refcountBits) throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, refcountBits, DISK);
    MemoryStorage file = shape.make(new byte[0]);
    byte[] disk = disk(refcountBits);
    try (DiskImage image = new Engine(shape, NONE).open(file)) {
      writeAll(image, disk);
      byte[] back = new byte[DISK];
      image.read(0, ByteBuffer.wrap(back));
      GuestModel.assertSame(disk, back, "read back");
    }
    requireClean(file);
    GuestModel.assertSame(disk, new RawQcow2(file).disk(null), "disk");
    long clusters = file.length() / CLUSTER;
    if (refcountBits == 1) {
      assertTrue(clusters > CLUSTERS, "one stream in each of " + clusters + " clusters");
    } else {
      assertTrue(clusters < CLUSTERS / 2, clusters + " host clusters");
    }
    rewriteAll(shape, file);
  }

  /** What guests overwrite, zero and trim leaves nothing behind, whatever it shared. */
  private static void rewriteAll(ImageShape shape, MemoryStorage file) throws IOException {
    byte[] disk = new byte[DISK];
    try (DiskImage image = new Engine(shape, NONE).open(file)) {
      for (int i = 0; i < CLUSTERS; i += 2) {
        image.trim((long) i * CLUSTER, CLUSTER);
      }
      image.flush();
      for (int i = 1; i < CLUSTERS; i += 2) {
        byte[] data = Pattern.fill(i, CLUSTER);
        System.arraycopy(data, 0, disk, i * CLUSTER, CLUSTER);
        image.write((long) i * CLUSTER, ByteBuffer.wrap(data));
      }
    }
    requireClean(file);
    GuestModel.assertSame(disk, new RawQcow2(file).disk(null), "disk when rewritten");
    try (DiskImage image = new Engine(shape, NONE).open(file)) {
      image.trim(0, DISK);
    }
    requireClean(file);
    assertTrue(file.length() <= 32 * CLUSTER, "the file has " + file.length() + " bytes");
  }

  /** Streams are added to a cluster whose others are all gone, before and after that is durable. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void isNotPutWhereNothingIsCountedAnyMore(boolean flushBetween) throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, DISK);
    MemoryStorage file = shape.make(new byte[0]);
    byte[] disk = disk(7);
    try (DiskImage image = new Engine(shape, NONE).open(file)) {
      for (int round = 0; round < 40; round++) {
        int at = round * CLUSTER;
        image.writeCompressed(at, ByteBuffer.wrap(disk, at, CLUSTER));
        image.trim(at, CLUSTER);
        if (flushBetween || round % 5 == 0) {
          image.flush();
        }
        image.writeCompressed(at, ByteBuffer.wrap(disk, at, CLUSTER));
        if (round % 3 == 0) {
          image.write(at, ByteBuffer.wrap(disk, at, CLUSTER));
        }
      }
    }
    requireClean(file);
    byte[] expected = Arrays.copyOf(Arrays.copyOf(disk, 40 * CLUSTER), DISK);
    GuestModel.assertSame(expected, new RawQcow2(file).disk(null), "disk");
  }

  @Test
  void zeroesTakeNoSpaceAndNoiseStaysPlain() throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, 2 * CLUSTER).with(Backing.RAW_LONGER);
    Engine engine = new Engine(shape, new SeededRandom(2));
    MemoryStorage file = shape.make(new byte[0]);
    byte[] noise = new SeededRandom(3).bytes(CLUSTER);
    ByteBuffer zeroes = ByteBuffer.allocateDirect(CLUSTER);
    try (DiskImage image = engine.open(file)) {
      image.writeCompressed(0, zeroes);
      image.writeCompressed(CLUSTER, ByteBuffer.wrap(noise));
    }
    assertEquals(CLUSTER, zeroes.position());
    requireClean(file);
    byte[] disk = new RawQcow2(file).disk(engine.base());
    assertTrue(Arrays.equals(new byte[CLUSTER], Arrays.copyOf(disk, CLUSTER)));
    assertTrue(Arrays.equals(noise, Arrays.copyOfRange(disk, CLUSTER, 2 * CLUSTER)));
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 3})
  void theDisksLastClusterMayBeShorter(int version) throws IOException {
    ImageShape shape = ImageShape.of(version, CLUSTER, 16, 3 * CLUSTER + 512);
    MemoryStorage file = shape.make(new byte[0]);
    byte[] disk = Pattern.fill(5, shape.diskBytes());
    try (DiskImage image = new Engine(shape, NONE).open(file)) {
      writeAll(image, disk);
      assertThrows(
          IndexOutOfBoundsException.class,
          () -> image.writeCompressed(0, ByteBuffer.allocate(CLUSTER - 512)));
      assertThrows(
          IndexOutOfBoundsException.class,
          () -> image.writeCompressed(512, ByteBuffer.allocate(CLUSTER)));
      assertThrows(
          IndexOutOfBoundsException.class,
          () -> image.writeCompressed(0, ByteBuffer.allocate(2 * CLUSTER)));
      image.resize(4 * CLUSTER);
    }
    requireClean(file);
    byte[] longer = Arrays.copyOf(disk, 4 * CLUSTER);
    GuestModel.assertSame(longer, new RawQcow2(file).disk(null), "disk, grown");
  }

  /** What is decompressed already is read without waiting, until a guest has changed it. */
  @Test
  void whatWasDecompressedIsThereAtOnce() throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, DISK);
    MemoryStorage file = shape.make(new byte[0]);
    byte[] disk = disk(11);
    ByteBuffer part = ByteBuffer.allocate(512);
    try (DiskImage image = new Engine(shape, NONE).open(file)) {
      image.writeCompressed(0, ByteBuffer.wrap(disk, 0, CLUSTER));
      assertEquals(DiskImage.Attempt.WOULD_BLOCK, image.tryRead(1024, part));
      image.read(512, part);
      assertEquals(DiskImage.Attempt.DONE, image.tryRead(1024, part.clear()));
      assertTrue(Arrays.equals(Arrays.copyOfRange(disk, 1024, 1536), part.array()));
      byte[] other = Arrays.copyOfRange(disk, CLUSTER, 2 * CLUSTER);
      image.writeCompressed(0, ByteBuffer.wrap(other));
      assertEquals(DiskImage.Attempt.WOULD_BLOCK, image.tryRead(1024, part.clear()));
      image.read(1024, part);
      assertTrue(Arrays.equals(Arrays.copyOfRange(other, 1024, 1536), part.array()));
    }
  }

  @Test
  void manyThreadsCompressAtATime() throws Exception {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, DISK);
    MemoryStorage file = shape.make(new byte[0]);
    byte[] disk = disk(9);
    try (DiskImage image = new Engine(shape, NONE).open(file);
        ExecutorService threads = Executors.newFixedThreadPool(4)) {
      List<Callable<Void>> work = new ArrayList<>();
      for (int at = 0; at < DISK; at += CLUSTER) {
        int from = at;
        work.add(() -> {
          image.writeCompressed(from, ByteBuffer.wrap(disk, from, CLUSTER));
          if (from % (16 * CLUSTER) == 0) {
            image.flush();
          }
          return null;
        });
      }
      for (Future<Void> done : threads.invokeAll(work)) {
        done.get();
      }
    }
    requireClean(file);
    GuestModel.assertSame(disk, new RawQcow2(file).disk(null), "disk");
    assertTrue(file.length() < DISK / 2, "the file has " + file.length() + " bytes");
  }

  @Test
  void aRawImageHasNone() throws IOException {
    MemoryStorage file = new MemoryStorage("raw");
    file.setLength(DISK);
    try (DiskImage image = RawImage.open(file, false)) {
      assertThrows(
          UnsupportedImageException.class,
          () -> image.writeCompressed(0, ByteBuffer.allocate(CLUSTER)));
    }
  }
}
