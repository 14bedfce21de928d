package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CompressionType;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RebaseOptions;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Images that get another backing file, and ones whose changes go into it. */
final class RebasingTest {
  private static final OpenOptions OPTIONS = OpenOptions.DEFAULT.withFormat(ImageFormat.QCOW2);

  @TempDir private Path directory;

  private Path path(String name) throws IOException {
    Files.deleteIfExists(directory.resolve(name));
    return directory.resolve(name);
  }

  private Path overlay(String name, int version, long bytes, @Nullable String backing)
      throws IOException {
    Path path = path(name);
    DiskImages.create(
        path,
        new CreateOptions(
            ImageFormat.QCOW2,
            bytes,
            4096,
            version,
            16,
            false,
            false,
            backing == null ? null : Path.of(backing),
            backing == null ? null : ImageFormat.QCOW2,
            Preallocation.OFF));
    return path;
  }

  private static void scribble(Path path, SeededRandom random) throws IOException {
    try (DiskImage image = DiskImages.open(path, OPTIONS)) {
      for (int times = random.below(12); times > 0; times--) {
        int count = (int) random.skewed(1, image.virtualBytes() / 3);
        long at = random.below(image.virtualBytes() - count + 1);
        if (random.chance(25)) {
          image.writeZeroes(at, count, ZeroMode.MAY_UNMAP);
        } else {
          image.write(at, ByteBuffer.wrap(random.bytes(count)));
        }
      }
    }
  }

  private static byte[] contents(Path path) throws IOException {
    try (DiskImage image = DiskImages.open(path, OPTIONS.withReadOnly(true))) {
      byte[] bytes = new byte[(int) image.virtualBytes()];
      image.read(0, ByteBuffer.wrap(bytes));
      return bytes;
    }
  }

  private static void mustBeClean(Path path) throws IOException {
    assertTrue(DiskImages.check(path, OPTIONS).clean(), path::toString);
  }

  private static @Nullable String backing(Path path) throws IOException {
    ImageReport report = DiskImages.inspect(path, OPTIONS.withReadOnly(true));
    return Objects.requireNonNull(report.qcow2()).backingFile();
  }

  private static void rebase(Path path, @Nullable String backing, boolean unsafe)
      throws IOException {
    DiskImages.rebase(
        path,
        OPTIONS,
        new RebaseOptions(backing, backing == null ? null : ImageFormat.QCOW2, unsafe),
        ProgressListener.NONE);
  }

  @Test
  void theDiskReadsTheSameOverAnotherBackingFile() {
    Seeds.run(
        "RebasingTest",
        Seeds.count("qnbd.rebases", 25),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          int version = random.chance(30) ? 2 : 3;
          List<Integer> sizes = List.of(40960, 65536 + 1536, 200704);
          overlay("a.qcow2", 3, random.pick(sizes), null);
          overlay("b.qcow2", 3, random.pick(sizes), null);
          boolean alone = random.chance(20);
          Path top = overlay("top.qcow2", version, random.pick(sizes), alone ? null : "a.qcow2");
          scribble(directory.resolve("a.qcow2"), random);
          Files.copy(
              directory.resolve("a.qcow2"),
              directory.resolve("b.qcow2"),
              StandardCopyOption.REPLACE_EXISTING);
          scribble(directory.resolve("b.qcow2"), random);
          scribble(top, random);
          byte[] before = contents(top);
          rebase(top, "b.qcow2", false);
          assertEquals("b.qcow2", backing(top));
          GuestModel.assertSame(before, contents(top), "over the new backing file");
          rebase(top, null, false);
          assertNull(backing(top));
          GuestModel.assertSame(before, contents(top), "over nothing");
          mustBeClean(top);
        });
  }

  @Test
  void unsafelyOnlyTheNameChanges() throws IOException {
    overlay("a.qcow2", 3, 65536, null);
    Path top = overlay("top.qcow2", 3, 65536, "a.qcow2");
    rebase(top, "gone/away.qcow2", true);
    assertEquals("gone/away.qcow2", backing(top));
    assertThrows(IOException.class, () -> rebase(top, "a.qcow2", false));
    assertEquals("gone/away.qcow2", backing(top));
    rebase(top, null, true);
    assertEquals(65536, contents(top).length);
  }

  @Test
  void whatIsCommittedIsInTheBackingFile() {
    Seeds.run(
        "CommittingTest",
        Seeds.count("qnbd.downCommits", 25),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          List<Integer> sizes = List.of(40960, 65536 + 1536, 200704);
          Path base = overlay("base.qcow2", 3, random.pick(sizes), null);
          int version = random.chance(30) ? 2 : 3;
          Path top = overlay("top.qcow2", version, random.pick(sizes), "base.qcow2");
          scribble(base, random);
          scribble(top, random);
          byte[] before = contents(top);
          byte[] below = contents(base);
          boolean keep = random.chance(30);
          long length = Files.size(top);
          DiskImages.commit(top, OPTIONS, keep, ProgressListener.NONE);
          byte[] expected = Arrays.copyOf(below, Math.max(below.length, before.length));
          System.arraycopy(before, 0, expected, 0, before.length);
          GuestModel.assertSame(expected, contents(base), "the backing file");
          GuestModel.assertSame(before, contents(top), "the image");
          mustBeClean(base);
          mustBeClean(top);
          assertTrue(keep ? Files.size(top) == length : Files.size(top) <= length);
        });
  }

  @Test
  void anEncryptedOverlayIsCommittedWithItsPassphrase() throws IOException {
    Passphrase key = Passphrase.of("key".getBytes(StandardCharsets.UTF_8));
    OpenOptions opening = OPTIONS.withPassphrase(key);
    Path base = encrypted("base.qcow2", key, null);
    Path top = encrypted("top.qcow2", key, "base.qcow2");
    byte[] written = new SeededRandom(1).bytes(3 * 4096);
    try (DiskImage image = DiskImages.open(top, opening)) {
      image.write(5000, ByteBuffer.wrap(written));
    }
    byte[] below = Files.readAllBytes(base);
    assertThrows(
        IOException.class, () -> DiskImages.commit(top, OPTIONS, false, ProgressListener.NONE));
    assertArrayEquals(below, Files.readAllBytes(base));
    DiskImages.commit(top, opening, false, ProgressListener.NONE);
    for (Path path : List.of(base, top)) {
      try (DiskImage image = DiskImages.open(path, opening.withReadOnly(true))) {
        byte[] bytes = new byte[written.length];
        image.read(5000, ByteBuffer.wrap(bytes));
        assertArrayEquals(written, bytes, path::toString);
      }
      mustBeClean(path);
    }
  }

  @Test
  void aCommitThatCantOpenTheOverlayLetsTheBaseGo() throws IOException {
    Path base = overlay("base.qcow2", 3, 65536, null);
    Path top = encrypted("top.qcow2", Passphrase.of(new byte[] {'x'}), "base.qcow2");
    assertThrows(
        IOException.class, () -> DiskImages.commit(top, OPTIONS, false, ProgressListener.NONE));
    DiskImages.open(base, OPTIONS).close(); // it is locked no more
  }

  private Path encrypted(String name, Passphrase key, @Nullable String backing) throws IOException {
    Path path = path(name);
    DiskImages.create(
        path,
        new CreateOptions(
            ImageFormat.QCOW2,
            65536L,
            4096,
            3,
            16,
            false,
            false,
            backing == null ? null : Path.of(backing),
            backing == null ? null : ImageFormat.QCOW2,
            Preallocation.OFF,
            CompressionType.ZLIB,
            null,
            false,
            new CreateOptions.Encryption(key, 1)));
    return path;
  }

  @Test
  void aPassphraseThatACommitDoesNotNeedIsRefusedBeforeAnythingIsWritten() throws IOException {
    Path base = overlay("base.qcow2", 3, 40960, null);
    Path top = overlay("top.qcow2", 3, 65536, "base.qcow2");
    scribble(top, new SeededRandom(1));
    byte[] below = Files.readAllBytes(base);
    OpenOptions opening = OPTIONS.withPassphrase(Passphrase.of(new byte[] {'x'}));
    IOException refused =
        assertThrows(
            IOException.class, () -> DiskImages.commit(top, opening, false, ProgressListener.NONE));
    assertTrue(
        String.valueOf(refused.getMessage()).contains("is not encrypted"), refused::toString);
    assertArrayEquals(below, Files.readAllBytes(base));
  }

  @Test
  void refusesToCommitToNothing() throws IOException {
    Path alone = overlay("alone.qcow2", 3, 65536, null);
    assertThrows(
        UnsupportedImageException.class,
        () -> DiskImages.commit(alone, OPTIONS, false, ProgressListener.NONE));
  }
}
