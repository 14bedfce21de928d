package io.qnbd.image.oracle;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

final class OracleTest {
  private static final int DISK_BYTES = 300 * 1024 + 512;

  /** A disk of which about two thirds can be compressed. */
  private static byte[] disk() {
    SeededRandom random = new SeededRandom(7);
    byte[] disk = new byte[DISK_BYTES];
    for (int at = 0; at < DISK_BYTES; at += 4096) {
      byte[] noise = random.bytes(Math.min(4096, DISK_BYTES - at));
      if (random.chance(60)) {
        Arrays.fill(noise, random.below(noise.length), noise.length, (byte) 5);
      }
      System.arraycopy(noise, 0, disk, at, noise.length);
    }
    return disk;
  }

  @Test
  void madeImagesAreCleanAndKeepTheirSnapshots() throws IOException {
    for (int version : List.of(2, 3)) {
      for (int clusterBytes : List.of(512, 4096, 65536)) {
        MemoryStorage file =
            ImageMaker.empty(version, clusterBytes, 16, DISK_BYTES, 2, "base", "raw");
        ImageMaker.compress(file, disk());
        byte[] before = new RawQcow2(file).disk(null);
        SnapshotMaker.take(file, "first");
        SnapshotMaker.take(file, "second");
        RawQcow2 image = new RawQcow2(file);
        assertEquals(List.of(), image.check().corruptions());
        assertTrue(image.check().clean());
        assertEquals(2, image.snapshotCount());
        assertArrayEquals(before, image.disk(null));
        assertArrayEquals(before, image.snapshotDisk(0, null));
        assertArrayEquals(before, image.snapshotDisk(1, null));
      }
    }
  }

  @Test
  void preallocatedImagesAreClean() throws IOException {
    for (int refcountBits : List.of(1, 2, 4, 8, 16, 32, 64)) {
      MemoryStorage file = ImageMaker.empty(3, 512, refcountBits, DISK_BYTES, 2, null, null);
      ImageMaker.preallocate(file, Long.MAX_VALUE);
      assertEquals(List.of(), new RawQcow2(file).check().corruptions());
      assertTrue(new RawQcow2(file).check().clean());
    }
  }

  @Test
  void findsLeaksAndCorruptions() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 512, 2, DISK_BYTES, 2, null, null);
    ImageMaker.preallocate(file, Long.MAX_VALUE);
    RawQcow2 image = new RawQcow2(file);
    image.setRefcount(image.append(1) / 512, 1);
    assertEquals(1, new RawQcow2(file).check().leaks());
    assertEquals(List.of(), new RawQcow2(file).check().corruptions());
    image.setRefcount(20, 0);
    assertFalse(new RawQcow2(file).check().corruptions().isEmpty());
  }
}
