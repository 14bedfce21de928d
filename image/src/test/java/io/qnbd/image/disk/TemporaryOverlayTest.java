package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageLockedException;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Overlays that vanish. */
final class TemporaryOverlayTest {
  private static final int MIB = 1 << 20;

  @TempDir Path directory;

  private static DiskImage openTemporary(Path path, OpenOptions options, Path directory)
      throws IOException {
    return DiskImages.openTemporary(path, options, directory, ProgressListener.NONE);
  }

  private static byte[] read(DiskImage image, long at, int bytes) throws IOException {
    byte[] read = new byte[bytes];
    image.read(at, ByteBuffer.wrap(read));
    return read;
  }

  private Path qcow2(int bytes) throws IOException {
    Path path = directory.resolve("base.qcow2");
    DiskImages.create(path, CreateOptions.qcow2(bytes));
    try (DiskImage image = DiskImages.open(path, OpenOptions.DEFAULT)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, bytes)));
      image.snapshots().create("half");
      image.writeZeroes(0, bytes / 2, ZeroMode.MAY_UNMAP);
    }
    return path;
  }

  private Path emptyDirectory() throws IOException {
    return Files.createDirectory(directory.resolve("overlays"));
  }

  private static void assertEmpty(Path directory) throws IOException {
    assertCount(0, directory);
  }

  private static void assertCount(int count, Path directory) throws IOException {
    try (Stream<Path> files = Files.list(directory)) {
      assertEquals(count, files.count());
    }
  }

  /** A guest like any other, of which nothing is left. */
  @Test
  void takesWritesAndForgetsThem() throws IOException {
    Path base = qcow2(4 * MIB);
    byte[] before = Files.readAllBytes(base);
    Path overlays = emptyDirectory();
    SeededRandom random = new SeededRandom(1);
    try (DiskImage image = openTemporary(base, OpenOptions.DEFAULT, overlays)) {
      assertEmpty(overlays);
      assertFalse(image.readOnly());
      assertEquals(65536, image.preferredBytes());
      GuestModel model = new GuestModel(read(image, 0, 4 * MIB));
      Workload.Mix mix = Workload.Mix.random(random, MIB);
      Workload workload = new Workload(random, image, model, mix);
      workload.run(150);
      image.snapshots().create("inside");
      workload.run(50);
      image.snapshots().delete("inside");
      workload.checkAll();
      image.flush();
    }
    assertEmpty(overlays);
    assertArrayEquals(before, Files.readAllBytes(base));
  }

  @Test
  void standsOnASnapshotToo() throws IOException {
    Path base = qcow2(MIB);
    OpenOptions options = OpenOptions.DEFAULT.withSnapshot("half");
    try (DiskImage image = openTemporary(base, options, directory)) {
      assertArrayEquals(Pattern.fill(1, MIB), read(image, 0, MIB));
      image.write(0, ByteBuffer.wrap(new byte[512]));
      assertArrayEquals(new byte[512], read(image, 0, 512));
    }
  }

  /** A raw image may end within a sector; the overlay ends with it. */
  @Test
  void standsOnARawImageAndGrows() throws IOException {
    Path base = directory.resolve("base.raw");
    Files.write(base, Pattern.fill(1, MIB + 100));
    OpenOptions raw = OpenOptions.DEFAULT.withFormat(ImageFormat.RAW);
    try (DiskImage image = openTemporary(base, raw, directory)) {
      assertEquals(MIB + 512, image.virtualBytes());
      byte[] expected = Arrays.copyOf(Pattern.fill(1, MIB + 100), MIB + 512);
      assertArrayEquals(expected, read(image, 0, MIB + 512));
      image.resize(3 * MIB);
      image.write(2 * MIB, ByteBuffer.wrap(Pattern.fill(2, MIB)));
      image.trim(0, MIB);
      byte[] grown = new byte[3 * MIB];
      System.arraycopy(expected, MIB, grown, MIB, 512);
      System.arraycopy(Pattern.fill(2, MIB), 0, grown, 2 * MIB, MIB);
      assertArrayEquals(grown, read(image, 0, 3 * MIB));
    }
    assertEquals(MIB + 100, Files.size(base));
  }

  /** As a backing file is locked: many may read it, nobody may write to it. */
  @Test
  void sharesItsBaseWithReadersOnly() throws IOException {
    Path base = qcow2(MIB);
    try (DiskImage first = openTemporary(base, OpenOptions.DEFAULT, directory);
        DiskImage second = openTemporary(base, OpenOptions.DEFAULT, directory);
        DiskImage reader = DiskImages.open(base, OpenOptions.DEFAULT.withReadOnly(true))) {
      first.write(0, ByteBuffer.wrap(Pattern.fill(2, MIB)));
      assertArrayEquals(read(reader, 0, MIB), read(second, 0, MIB));
      assertThrows(
          ImageLockedException.class, () -> DiskImages.open(base, OpenOptions.DEFAULT).close());
    }
    DiskImages.open(base, OpenOptions.DEFAULT).close();
  }

  @Test
  void whatCantBeMadeLeavesTheBaseFree() throws IOException {
    Path base = qcow2(MIB);
    Path missing = directory.resolve("missing");
    IOException e =
        assertThrows(
            IOException.class, () -> openTemporary(base, OpenOptions.DEFAULT, missing).close());
    assertTrue(
        String.valueOf(e.getMessage())
            .endsWith("missing is not a directory, in which a temporary overlay could be made"),
        e.getMessage());
    DiskImages.open(base, OpenOptions.DEFAULT).close();
    assertThrows(
        IOException.class, () -> openTemporary(missing, OpenOptions.DEFAULT, directory).close());
    assertCount(1, directory);
  }

  /** A disk that 64 KiB clusters can't hold gets larger ones; a host file may have holes. */
  @Test
  void largeDisksGetLargeClusters() throws IOException {
    Path base = directory.resolve("large.qcow2");
    long bytes = 5L << 50;
    CreateOptions usual = CreateOptions.qcow2(bytes);
    DiskImages.create(
        base,
        new CreateOptions(
            usual.format(), bytes, 2 * MIB, 3, 16, false, false, null, null, Preallocation.OFF));
    try (DiskImage image = openTemporary(base, OpenOptions.DEFAULT, directory)) {
      assertEquals(bytes, image.virtualBytes());
      assertTrue(image.preferredBytes() > 65536);
      image.write(bytes - 512, ByteBuffer.wrap(Pattern.fill(1, 512)));
      assertArrayEquals(Pattern.fill(1, 512), read(image, bytes - 512, 512));
    }
  }
}
