package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Zeroing that is refused where zeroes would have to be written. */
final class FastZeroesTest {
  private static final int CLUSTER = 4096;
  private static final int DISK = 16 * CLUSTER;
  private static final ExtentState HOLE = new ExtentState(true, true, 1);
  private static final ExtentState KEPT = new ExtentState(false, true, 1);
  private static final ExtentState DATA = new ExtentState(false, false, 1);

  private static MemoryStorage file(int version, boolean backed) throws IOException {
    return ImageMaker.empty(
        version, CLUSTER, 16, DISK, 1, backed ? "base" : null, backed ? "raw" : null);
  }

  private static DiskImage open(MemoryStorage file, boolean readOnly, int backingBytes)
      throws IOException {
    OpenOptions options =
        OpenOptions.DEFAULT
            .withFormat(ImageFormat.QCOW2)
            .withBackingPolicy(BackingPolicy.ANY)
            .withReadOnly(readOnly);
    return Qcow2Image.open(file, options, (_, _) -> new BytesImage(Pattern.fill(7, backingBytes)));
  }

  private static byte[] read(DiskImage image) throws IOException {
    ByteBuffer disk = ByteBuffer.allocate(DISK);
    image.read(0, disk);
    return disk.array();
  }

  private static List<ExtentState> clusters(DiskImage image, int from, int count)
      throws IOException {
    List<ExtentState> states = new ArrayList<>();
    image.extents(
        (long) from * CLUSTER,
        (long) count * CLUSTER,
        (bytes, state) -> {
          for (int i = 0; i < bytes / CLUSTER; i++) {
            states.add(state);
          }
          return true;
        });
    return states;
  }

  private static void refused(DiskImage image, long at, long bytes, ZeroMode mode)
      throws IOException {
    byte[] before = read(image);
    List<ExtentState> states = clusters(image, 0, DISK / CLUSTER);
    assertFalse(image.tryFastZeroes(at, bytes, mode));
    assertArrayEquals(before, read(image));
    assertEquals(states, clusters(image, 0, DISK / CLUSTER));
  }

  @ParameterizedTest
  @EnumSource
  void wholeClustersAreZeroedWithoutWriting(ZeroMode mode) throws IOException {
    MemoryStorage file = file(3, true);
    try (DiskImage image = open(file, false, DISK)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, 4 * CLUSTER)));
      long writes = file.count(Operation.WRITE) + file.count(Operation.ZERO_RANGE);
      assertTrue(image.tryFastZeroes(CLUSTER, 6 * CLUSTER, mode));
      assertEquals(writes, file.count(Operation.WRITE) + file.count(Operation.ZERO_RANGE));
      ExtentState zeroed = mode == ZeroMode.MAY_UNMAP ? HOLE : KEPT;
      assertEquals(
          List.of(DATA, zeroed, zeroed, zeroed, zeroed, zeroed, zeroed), clusters(image, 0, 7));
    }
    RawQcow2 closed = new RawQcow2(file);
    assertTrue(closed.check().clean(), () -> closed.check().toString());
  }

  @Test
  void partsOfClustersMustBeZeroAlready() throws IOException {
    try (DiskImage image = open(file(3, false), false, 0)) {
      image.write(4 * CLUSTER, ByteBuffer.wrap(Pattern.fill(1, CLUSTER)));
      refused(image, 4 * CLUSTER + 512, 512, ZeroMode.MAY_UNMAP);
      refused(image, 4 * CLUSTER + 512, 3 * CLUSTER, ZeroMode.MAY_UNMAP);
      refused(image, 2 * CLUSTER, 2 * CLUSTER + 512, ZeroMode.MAY_UNMAP);
      assertTrue(image.tryFastZeroes(512, 512, ZeroMode.MAY_UNMAP));
      assertTrue(image.tryFastZeroes(3 * CLUSTER + 1, 3 * CLUSTER, ZeroMode.MAY_UNMAP));
      assertArrayEquals(new byte[DISK], read(image));
    }
  }

  @Test
  void partsOfClustersThatAreToKeepTheirSpaceMustHaveItAlready() throws IOException {
    MemoryStorage file = file(3, false);
    try (DiskImage image = open(file, false, 0)) {
      refused(image, 512, 512, ZeroMode.KEEP_ALLOCATED);
      refused(image, 512, 3 * CLUSTER, ZeroMode.KEEP_ALLOCATED);
      image.writeZeroes(0, CLUSTER, ZeroMode.KEEP_ALLOCATED);
      assertTrue(image.tryFastZeroes(512, 512, ZeroMode.KEEP_ALLOCATED));
      assertTrue(image.tryFastZeroes(512, 2 * CLUSTER - 512, ZeroMode.KEEP_ALLOCATED));
      long writes = file.count(Operation.WRITE);
      assertTrue(image.tryFastZeroes(512, CLUSTER, ZeroMode.KEEP_ALLOCATED));
      assertTrue(image.tryFastZeroes(0, CLUSTER + 512, ZeroMode.KEEP_ALLOCATED));
      assertEquals(writes, file.count(Operation.WRITE), "a tail that was zero already is written");
      assertEquals(List.of(KEPT, KEPT), clusters(image, 0, 2));
    }
  }

  @Test
  void version2CantSayZeroesOverABackingFile() throws IOException {
    MemoryStorage file = file(2, true);
    int backing = 8 * CLUSTER + 512;
    try (DiskImage image = open(file, false, backing)) {
      image.write(8 * CLUSTER, ByteBuffer.wrap(Pattern.fill(1, 4 * CLUSTER)));
      refused(image, 0, CLUSTER, ZeroMode.MAY_UNMAP);
      refused(image, 8 * CLUSTER, 2 * CLUSTER, ZeroMode.MAY_UNMAP);
      refused(image, 12 * CLUSTER, CLUSTER, ZeroMode.KEEP_ALLOCATED);
      assertTrue(image.tryFastZeroes(9 * CLUSTER, 7 * CLUSTER, ZeroMode.MAY_UNMAP));
      assertEquals(9 * CLUSTER, lastByteOfData(read(image)));
    }
    RawQcow2 closed = new RawQcow2(file);
    assertTrue(closed.check().clean(), () -> closed.check().toString());
  }

  private static int lastByteOfData(byte[] disk) {
    int end = disk.length;
    while (end > 0 && disk[end - 1] == 0) {
      end--;
    }
    return end;
  }

  @Test
  void aDiskForReadingRefusesAll() throws IOException {
    MemoryStorage file = file(3, false);
    try (DiskImage image = open(file, true, 0)) {
      assertThrows(
          ReadOnlyImageException.class, () -> image.tryFastZeroes(0, 512, ZeroMode.MAY_UNMAP));
      assertThrows(
          IndexOutOfBoundsException.class,
          () -> image.tryFastZeroes(DISK, 512, ZeroMode.MAY_UNMAP));
    }
  }

  @Test
  void nothingIsDoneToAnEmptyRange() throws IOException {
    MemoryStorage file = file(2, false);
    try (DiskImage image = open(file, false, 0)) {
      assertTrue(image.tryFastZeroes(DISK, 0, ZeroMode.KEEP_ALLOCATED));
      assertTrue(image.tryFastZeroes(0, 0, ZeroMode.MAY_UNMAP));
    }
  }
}
