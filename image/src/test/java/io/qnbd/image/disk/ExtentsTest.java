package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentState;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * What images say that ranges are made of, and reads that leave zeroes out, against what other code
 * finds in the tables of the whole chain. {@code qemu-img map} is asked by the integration tests.
 */
final class ExtentsTest {
  private static final int SECTOR = Chain.SECTOR;

  @ParameterizedTest
  @CsvSource({"1,false", "2,false", "2,true", "3,false", "3,true", "5,true"})
  void agreesWithTheTablesOfTheWholeChain(int length, boolean rawBelow) {
    Seeds.run(
        "ExtentsTest " + length + rawBelow,
        Seeds.count("qnbd.chains", 25),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          Chain chain = new Chain(random, length, rawBelow);
          try (DiskImage image = chain.open(true)) {
            check(image, chain.sectors(), chain.disk(), random);
          }
          List<ExtentState> past = List.copyOf(chain.sectors());
          byte[] pastDisk = chain.disk().clone();
          chain.snapshotAndUse("past");
          try (DiskImage image = chain.open(false)) {
            check(image, chain.sectors(), chain.disk(), random);
          }
          try (DiskImage image = chain.openSnapshot("past")) {
            check(image, past, pastDisk, random);
          }
        });
  }

  private static void check(
      DiskImage image, List<ExtentState> sectors, byte[] disk, SeededRandom random)
      throws IOException {
    checkRange(image, 0, disk.length, sectors, disk);
    for (int i = 0; i < 10; i++) {
      int count = (int) random.skewed(1, disk.length);
      checkRange(image, random.below(disk.length - count + 1), count, sectors, disk);
    }
  }

  private static void checkRange(
      DiskImage image, int at, int count, List<ExtentState> sectors, byte[] disk)
      throws IOException {
    byte[] read = SparseRead.of(image, at, ByteBuffer.allocate(count));
    GuestModel.assertSame(Arrays.copyOfRange(disk, at, at + count), read, "sparse read at " + at);
    List<Extent> expected = expected(at, count, sectors);
    assertEquals(expected, extents(image, at, count));
    List<Extent> first = new ArrayList<>();
    image.extents(
        at,
        count,
        (bytes, state) -> {
          first.add(new Extent(bytes, state));
          return false;
        });
    assertEquals(expected.subList(0, 1), first, "told after it was told to stop");
  }

  private record Extent(long bytes, ExtentState state) {}

  private static List<Extent> expected(int at, int count, List<ExtentState> sectors) {
    List<Extent> extents = new ArrayList<>();
    for (int next = at; next < at + count; ) {
      ExtentState state = sectors.get(next / SECTOR);
      int end = next;
      while (end < at + count && sectors.get(end / SECTOR).equals(state)) {
        end = Math.min(at + count, (end / SECTOR + 1) * SECTOR);
      }
      extents.add(new Extent(end - next, state));
      next = end;
    }
    return extents;
  }

  private static List<Extent> extents(DiskImage image, long at, long count) throws IOException {
    List<Extent> extents = new ArrayList<>();
    image.extents(
        at,
        count,
        (bytes, state) -> {
          extents.add(new Extent(bytes, state));
          return true;
        });
    return extents;
  }

  /** What the tables know to be zeroes is never filled in by an image without a raw file below. */
  @Test
  void sparseReadsLeaveOutAllThatTheTablesKnow() {
    Seeds.run(
        "ExtentsTest sparse",
        25,
        seed -> {
          Chain chain = new Chain(new SeededRandom(seed), 3, false);
          List<SparseRead.Range> zeroes = new ArrayList<>();
          int from = -1;
          for (int sector = 0; sector <= chain.sectors().size(); sector++) {
            boolean zero = sector < chain.sectors().size() && chain.sectors().get(sector).zero();
            if (zero && from < 0) {
              from = sector;
            } else if (!zero && from >= 0) {
              zeroes.add(new SparseRead.Range(from * SECTOR, (sector - from) * SECTOR));
              from = -1;
            }
          }
          try (DiskImage image = chain.open(true)) {
            ByteBuffer target = ByteBuffer.allocate(chain.disk().length);
            assertEquals(zeroes, SparseRead.read(image, 0, target));
          }
        });
  }

  @Test
  void aDiskOfATebibyteIsAnsweredByReadingTheOneTableThatItHas() throws IOException {
    long bytes = 1L << 40;
    MemoryStorage file = ImageMaker.empty(3, 65536, 16, bytes, 1, null, null);
    ImageShape shape = ImageShape.of(3, 65536, 16, 0);
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(file)) {
      image.write(bytes - 65536, ByteBuffer.allocate(512));
      long readsBefore = file.count(Operation.READ);
      assertEquals(
          List.of(
              new Extent(bytes - 65536, new ExtentState(true, true, 0)),
              new Extent(65536, new ExtentState(false, false, 1))),
          extents(image, 0, bytes));
      // A table of 16 slices, the last of which is in the cache.
      assertEquals(readsBefore + 15, file.count(Operation.READ));
    }
  }

  @Test
  void zeroedClustersThatKeepTheirSpaceAreNoHoles() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, 65536, 1, null, null);
    ImageShape shape = ImageShape.of(3, 4096, 16, 65536);
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(file)) {
      image.writeZeroes(0, 8192, ZeroMode.KEEP_ALLOCATED);
      assertEquals(
          List.of(
              new Extent(8192, new ExtentState(false, true, 1)),
              new Extent(57344, new ExtentState(true, true, 0))),
          extents(image, 0, 65536));
    }
  }

  @Test
  void rangesOutsideTheDiskAreBugsOfTheCallerAndEmptyOnesTellNothing() throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, 65536, 1, null, null);
    ImageShape shape = ImageShape.of(3, 4096, 16, 65536);
    try (DiskImage image = new Engine(shape, new SeededRandom(1)).open(file)) {
      assertEquals(List.of(), extents(image, 65536, 0));
      assertThrows(IndexOutOfBoundsException.class, () -> extents(image, 65535, 2));
      assertThrows(
          IndexOutOfBoundsException.class,
          () -> image.read(65535, ByteBuffer.allocate(2), (_, _) -> {}));
      List<SparseRead.Range> told = SparseRead.read(image, 65536, ByteBuffer.allocate(0));
      assertTrue(told.isEmpty());
    }
  }
}
