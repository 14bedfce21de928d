package io.qnbd.image.raw;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ExtentState;
import io.qnbd.image.NoSpaceException;
import io.qnbd.image.ReadOnlyImageException;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.io.FaultyStorage;
import io.qnbd.image.io.FileStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(value = 60, unit = TimeUnit.SECONDS)
final class RawImageTest {
  @TempDir private Path temp;

  /** Sizes with odd tails, over a real file, buffered and direct. */
  @ParameterizedTest
  @CsvSource({
    "WRITEBACK, 1, 1",
    "WRITEBACK, 65536, 2",
    "WRITEBACK, 70001, 3",
    "NONE, 511, 4",
    "NONE, 65536, 5",
    "NONE, 70001, 6"
  })
  void agreesWithAnArray(CacheMode mode, int virtualBytes, long seed) throws IOException {
    Random random = new Random(seed);
    byte[] model = new byte[virtualBytes];
    Path path = temp.resolve("disk.raw");
    try (DiskImage image = new RawImage(FileStorage.create(path, mode), virtualBytes, false)) {
      for (int step = 0; step < 200; step++) {
        int at = random.nextInt(virtualBytes);
        int bytes = random.nextInt(virtualBytes - at + 1);
        int wholeFrom = (at + 4095) & -4096;
        int wholeTo = (at + bytes) & -4096;
        switch (random.nextInt(6)) {
          case 0, 1 -> {
            byte[] written = new byte[bytes];
            random.nextBytes(written);
            image.write(at, ByteBuffer.wrap(written));
            System.arraycopy(written, 0, model, at, bytes);
          }
          case 2 -> {
            image.writeZeroes(at, bytes, ZeroMode.MAY_UNMAP);
            Arrays.fill(model, at, at + bytes, (byte) 0);
          }
          case 3 -> {
            image.writeZeroes(at, bytes, ZeroMode.KEEP_ALLOCATED);
            Arrays.fill(model, at, at + bytes, (byte) 0);
          }
          case 4 -> {
            image.trim(at, bytes);
            if (wholeFrom < wholeTo) {
              Arrays.fill(model, wholeFrom, wholeTo, (byte) 0);
            }
          }
          default -> image.flush();
        }
        ByteBuffer all = ByteBuffer.allocate(virtualBytes);
        image.read(0, all);
        assertFalse(all.hasRemaining());
        assertArrayEquals(model, all.array(), "seed " + seed + " step " + step);
      }
    }
  }

  @Test
  void readsZeroesPastTheEndOfTheFile() throws IOException {
    try (DiskImage image = new RawImage(MemoryStorage.of(new byte[] {1, 2, 3}), 1001, false)) {
      ByteBuffer target = ByteBuffer.allocate(30);
      Arrays.fill(target.array(), (byte) 9);
      image.read(2, target.position(5).limit(25));
      byte[] expected = new byte[30];
      Arrays.fill(expected, 0, 5, (byte) 9);
      expected[5] = 3;
      Arrays.fill(expected, 25, 30, (byte) 9);
      assertArrayEquals(expected, target.array());
      image.read(1001, ByteBuffer.allocate(0));
    }
  }

  @Test
  void diskIsAsLongAsItsFileWhateverItsLength() throws IOException {
    try (DiskImage image = RawImage.open(MemoryStorage.of(new byte[4097]), true)) {
      assertEquals(4097, image.virtualBytes());
      assertTrue(image.readOnly());
    }
  }

  @Test
  void rangeOutsideTheDiskIsABugOfTheCaller() throws IOException {
    try (DiskImage image = new RawImage(new MemoryStorage(), 1000, false)) {
      bug(() -> image.read(999, ByteBuffer.allocate(2)));
      bug(() -> image.write(1001, ByteBuffer.allocate(0)));
      bug(() -> image.trim(-1, 1));
      bug(() -> image.writeZeroes(1, Long.MAX_VALUE, ZeroMode.MAY_UNMAP));
      bug(() -> image.prefetch(0, 1001));
    }
  }

  @Test
  void readOnlyImageRefusesChangesAndCommitsAtOnce() throws IOException {
    MemoryStorage storage = MemoryStorage.of(new byte[1000]);
    try (DiskImage image = RawImage.open(storage, true)) {
      refused(() -> image.write(0, ByteBuffer.allocate(1)));
      refused(() -> image.trim(0, 1));
      refused(() -> image.writeZeroes(0, 1, ZeroMode.KEEP_ALLOCATED));
      image.flush();
    }
  }

  @Test
  void fullHostDoesNotFailTheImage() throws IOException {
    MemoryStorage storage = new MemoryStorage();
    try (DiskImage image = new RawImage(storage, 1 << 20, false)) {
      storage.limitCapacity(8192);
      assertThrows(NoSpaceException.class, () -> image.write(0, ByteBuffer.allocate(65536)));
      storage.limitCapacity(1 << 20);
      image.write(0, ByteBuffer.allocate(65536));
      image.flush();
    }
  }

  /** The second sync would succeed; the close still closes the file. */
  @Test
  void failedCommitFailsTheImageForGood() throws IOException {
    FileStorage file = FileStorage.create(temp.resolve("disk.raw"), CacheMode.WRITEBACK);
    FaultyStorage faulty = new FaultyStorage(file);
    DiskImage image = new RawImage(faulty, 8192, false);
    image.write(0, ByteBuffer.wrap(new byte[] {7}));
    faulty.failOnce(EnumSet.of(Operation.SYNC), 1, FaultyStorage.Failure.IO_ERROR);
    assertThrows(IOException.class, image::flush);
    assertThrows(IOException.class, image::flush);
    assertThrows(IOException.class, () -> image.write(0, ByteBuffer.allocate(1)));
    assertThrows(IOException.class, () -> image.writeZeroes(0, 1, ZeroMode.MAY_UNMAP));
    ByteBuffer target = ByteBuffer.allocate(1);
    image.read(0, target);
    assertEquals(7, target.get(0));
    assertThrows(IOException.class, image::close);
    image.close();
    assertEquals(1, faulty.count(EnumSet.of(Operation.SYNC)));
    assertThrows(IOException.class, file::length, "the file is still open");
  }

  @Test
  void trimGivesWholeBlocksBackAndLeavesTheEdges() throws IOException {
    byte[] ones = new byte[16384];
    Arrays.fill(ones, (byte) 1);
    MemoryStorage storage = MemoryStorage.of(ones);
    try (DiskImage image = RawImage.open(storage, false)) {
      image.trim(1, 12286); // one whole block lies inside
      byte[] expected = ones.clone();
      Arrays.fill(expected, 4096, 8192, (byte) 0);
      assertArrayEquals(expected, storage.bytes(0, 16384));
      assertEquals(12288, storage.allocatedBytes());
    }
  }

  private record Extent(long bytes, boolean hole) {}

  private static List<Extent> extents(DiskImage image, long at, long count) throws IOException {
    List<Extent> extents = new ArrayList<>();
    image.extents(
        at,
        count,
        (bytes, state) -> {
          assertEquals(new ExtentState(state.hole(), state.hole(), 1), state);
          extents.add(new Extent(bytes, state.hole()));
          return extents.size() < 4;
        });
    return extents;
  }

  @Test
  void tellsTheHolesOfItsFileAndWhatTheFileLacks() throws IOException {
    MemoryStorage storage = new MemoryStorage();
    storage.write(65536, ByteBuffer.wrap(ones(8192)));
    storage.write(131072, ByteBuffer.wrap(ones(512)));
    try (DiskImage image = new RawImage(storage, 1 << 20, true)) {
      assertEquals(
          List.of(
              new Extent(65536, true),
              new Extent(8192, false),
              new Extent(57344, true),
              new Extent(512, false)),
          extents(image, 0, 1 << 20),
          "and no more, when told to stop");
      assertEquals(List.of(new Extent(512, false)), extents(image, 66000, 512));
      assertEquals(List.of(new Extent(1000, true)), extents(image, 500000, 1000));
      assertEquals(List.of(), extents(image, 1 << 20, 0));
    }
  }

  /** Holes between small pieces of data are told where the host is asked, and filled in else. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4})
  void sparseReadsAgreeWithTheOthers(long seed) throws IOException {
    Random random = new Random(seed);
    int bytes = 3 << 20;
    Path path = temp.resolve("sparse.raw");
    try (DiskImage image =
        new RawImage(FileStorage.create(path, CacheMode.WRITEBACK), bytes, false)) {
      for (int i = 0; i < 12; i++) {
        int count = 1 + random.nextInt(i % 2 == 0 ? 5000 : 200_000);
        image.write(random.nextInt(bytes - count), ByteBuffer.wrap(ones(count)));
      }
      for (int i = 0; i < 40; i++) {
        int count = random.nextInt(i == 0 ? 1 : bytes);
        checkSparse(image, random.nextInt(bytes - count), count);
      }
      checkSparse(image, 0, bytes);
    }
  }

  private static void checkSparse(DiskImage image, int at, int count) throws IOException {
    ByteBuffer sparse = ByteBuffer.allocate(count + 5);
    Arrays.fill(sparse.array(), (byte) 0x5a);
    sparse.position(5);
    List<Integer> ends = new ArrayList<>(List.of(-1));
    image.read(
        at,
        sparse,
        (from, length) -> {
          assertTrue(from > ends.getLast(), "neighbours are told as one, in order");
          ends.add(from + length);
          for (int i = from; i < from + length; i++) {
            assertEquals(0x5a, sparse.get(5 + i), "written to, though told");
            sparse.put(5 + i, (byte) 0);
          }
        });
    assertFalse(sparse.hasRemaining());
    ByteBuffer whole = ByteBuffer.allocate(count);
    image.read(at, whole);
    assertEquals(whole.flip(), sparse.position(5));
  }

  @Test
  void aLargeReadOfAHoleReadsNothing() throws IOException {
    MemoryStorage storage = new MemoryStorage();
    try (DiskImage image = new RawImage(storage, 1 << 20, false)) {
      image.write((1 << 20) - 512, ByteBuffer.wrap(ones(512)));
      long reads = storage.count(Operation.READ);
      List<Integer> told = new ArrayList<>();
      image.read(0, ByteBuffer.allocate(1 << 19), (at, bytes) -> told.addAll(List.of(at, bytes)));
      assertEquals(List.of(0, 1 << 19), told);
      assertEquals(reads, storage.count(Operation.READ));
    }
  }

  /** The storage of a host that has neither call refuses, and nothing is changed. */
  @Test
  void fastZeroesAreTheHostsOrNone() throws IOException {
    MemoryStorage storage = MemoryStorage.of(ones(16384));
    try (DiskImage image = RawImage.open(new FaultyStorage(storage), false)) {
      assertFalse(image.tryFastZeroes(0, 8192, ZeroMode.MAY_UNMAP));
      assertFalse(image.tryFastZeroes(0, 8192, ZeroMode.KEEP_ALLOCATED));
      assertArrayEquals(ones(16384), storage.bytes(0, 16384));
    }
    try (DiskImage image = new RawImage(storage, 1 << 20, false)) {
      assertTrue(image.tryFastZeroes(0, 8192, ZeroMode.MAY_UNMAP));
      assertTrue(image.tryFastZeroes(8192, 4096, ZeroMode.KEEP_ALLOCATED));
      assertTrue(image.tryFastZeroes(65536, 4096, ZeroMode.MAY_UNMAP));
      byte[] expected = ones(16384);
      Arrays.fill(expected, 0, 12288, (byte) 0);
      assertArrayEquals(expected, storage.bytes(0, 16384));
      assertEquals(8192, storage.allocatedBytes());
      bug(() -> image.tryFastZeroes(1 << 20, 1, ZeroMode.MAY_UNMAP));
    }
    try (DiskImage image = RawImage.open(storage, true)) {
      refused(() -> image.tryFastZeroes(0, 1, ZeroMode.KEEP_ALLOCATED));
    }
  }

  private static byte[] ones(int count) {
    byte[] ones = new byte[count];
    Arrays.fill(ones, (byte) 1);
    return ones;
  }

  @Test
  void closingTwiceIsHarmless() throws IOException {
    DiskImage image = new RawImage(new MemoryStorage(), 10, false);
    image.write(0, ByteBuffer.allocate(10));
    image.close();
    image.close();
  }

  private static void bug(Executable call) {
    assertThrows(IndexOutOfBoundsException.class, call);
  }

  private static void refused(Executable call) {
    String message = String.valueOf(assertThrows(ReadOnlyImageException.class, call).getMessage());
    assertTrue(message.endsWith("of memory: it is open for reading only"), message);
  }

  @Test
  void growsWhileItIsInUse() throws IOException {
    Path path = temp.resolve("disk.raw");
    try (DiskImage image =
        new RawImage(FileStorage.create(path, CacheMode.WRITEBACK), 100, false)) {
      image.write(0, ByteBuffer.wrap(new byte[] {1, 2, 3}));
      image.resize(65536);
      assertEquals(65536, image.virtualBytes());
      assertEquals(65536, Files.size(path));
      image.write(65535, ByteBuffer.wrap(new byte[] {4}));
      byte[] expected = new byte[65536];
      System.arraycopy(new byte[] {1, 2, 3}, 0, expected, 0, 3);
      expected[65535] = 4;
      ByteBuffer all = ByteBuffer.allocate(65536);
      image.read(0, all);
      assertArrayEquals(expected, all.array());
      assertThrows(
          IndexOutOfBoundsException.class, () -> image.read(65536, ByteBuffer.allocate(1)));
    }
  }

  /** A disk may be shorter than its file, whose rest is not the guest's to read. */
  @Test
  void growsOverWhatTheFileHadBehindTheDisk() throws IOException {
    byte[] old = new byte[2048];
    Arrays.fill(old, (byte) 7);
    MemoryStorage file = MemoryStorage.of(old);
    try (DiskImage image = new RawImage(file, 512, false)) {
      image.resize(1024);
      image.resize(1024);
      image.resize(4096);
      ByteBuffer all = ByteBuffer.allocate(4096);
      image.read(0, all);
      byte[] expected = new byte[4096];
      Arrays.fill(expected, 0, 512, (byte) 7);
      assertArrayEquals(expected, all.array());
    }
  }

  @Test
  void refusesSizesThatItCantHave() throws IOException {
    try (DiskImage image = new RawImage(MemoryStorage.of(new byte[1024]), 1024, false)) {
      IOException shrink = assertThrows(IOException.class, () -> image.resize(512));
      assertTrue(String.valueOf(shrink.getMessage()).contains("can't shrink to 512"));
      IOException odd = assertThrows(IOException.class, () -> image.resize(1500));
      assertTrue(String.valueOf(odd.getMessage()).contains("no multiple of 512"));
      assertEquals(1024, image.virtualBytes());
    }
    try (DiskImage image = new RawImage(MemoryStorage.of(new byte[1024]), 1024, true)) {
      assertThrows(ReadOnlyImageException.class, () -> image.resize(2048));
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"SET_LENGTH", "SYNC"})
  void keepsItsSizeWhenTheFileDoesNotGrow(Operation operation) throws IOException {
    FaultyStorage file = new FaultyStorage(new MemoryStorage("disk"));
    DiskImage image = new RawImage(file, 1024, false);
    file.failOnce(EnumSet.of(operation), 1, FaultyStorage.Failure.NO_SPACE);
    assertThrows(NoSpaceException.class, () -> image.resize(4096));
    assertEquals(1024, image.virtualBytes());
    if (operation == Operation.SET_LENGTH) {
      image.resize(4096);
      assertEquals(4096, image.virtualBytes());
      image.close();
    } else {
      assertThrows(IOException.class, () -> image.resize(4096));
      assertThrows(IOException.class, image::close);
    }
  }
}
