package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.image.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(value = 120, unit = TimeUnit.SECONDS)
final class FileStorageTest {
  private static final int MODEL_BYTES = 96 << 10;

  @TempDir private Path temp;

  /** A path on a file system with O_DIRECT: the temporary directory, or else the module's own. */
  private Path directPath() throws IOException {
    Path first = temp.resolve("disk");
    try {
      FileStorage.create(first, CacheMode.NONE).close();
      Files.delete(first);
      return first;
    } catch (IOException e) {
      Path second = Files.createTempFile(Files.createDirectories(Path.of("target")), "disk", "");
      Files.delete(second);
      second.toFile().deleteOnExit();
      return second;
    }
  }

  private Path path(CacheMode mode) throws IOException {
    return mode.direct() ? directPath() : temp.resolve("disk");
  }

  @ParameterizedTest
  @EnumSource(CacheMode.class)
  void keepsWhatWasWritten(CacheMode mode) throws IOException {
    Path path = path(mode);
    byte[] bytes = random(1, 10_001);
    try (FileStorage file = FileStorage.create(path, mode)) {
      file.write(777, ByteBuffer.wrap(bytes));
      assertEquals(777 + bytes.length, file.length());
      file.sync();
    }
    try (FileStorage file = FileStorage.open(path, true, mode)) {
      ByteBuffer target = ByteBuffer.allocate(bytes.length + 50);
      assertEquals(bytes.length, file.read(777, target));
      assertEquals(bytes.length, target.position());
      assertArrayEquals(bytes, Arrays.copyOf(target.array(), bytes.length));
      assertEquals(0, file.read(777 + bytes.length, ByteBuffer.allocate(9)));
      assertEquals(0, file.read(1 << 20, ByteBuffer.allocateDirect(9)));
      assertTrue(file.diskBytes() > 0);
    }
    assertEquals(777 + bytes.length, Files.size(path));
  }

  /** Fails within a few hundred reads on ext4 and tmpfs when the stamps are not asked. */
  @ParameterizedTest
  @ValueSource(ints = {512, 4096, 3 << 20})
  void readsSectorsWholeWhileTheyAreWritten(int readBytes) throws Exception {
    int fileBytes = 4 << 20;
    int at = 1 << 19;
    try (FileStorage file = FileStorage.create(temp.resolve("disk"), CacheMode.WRITEBACK)) {
      file.setLength(fileBytes);
      AtomicBoolean stop = new AtomicBoolean();
      Thread writer =
          Thread.ofPlatform()
              .start(() -> {
                ByteBuffer page = ByteBuffer.allocateDirect(WriteStamps.PAGE_BYTES);
                for (byte value = 1; !stop.get(); value++) {
                  for (int index = 0; index < page.capacity(); index++) {
                    page.put(index, value);
                  }
                  assertDoesNotThrow(() -> file.write(at, page.clear()));
                }
              });
      try {
        ByteBuffer target = ByteBuffer.allocateDirect(readBytes);
        int rounds = readBytes > 4096 ? 300 : 60_000;
        for (int round = 0; round < rounds; round++) {
          boolean quick = round % 2 == 0 && file.tryRead(at, target.clear());
          if (!quick) {
            assertEquals(readBytes, file.read(at, target.clear()));
          }
          assertEquals(readBytes, target.position());
          for (int sector = 0;
              sector < WriteStamps.PAGE_BYTES && sector < readBytes;
              sector += 512) {
            ByteBuffer whole = target.slice(sector, 512);
            int same = whole.mismatch(ByteBuffer.wrap(repeated(whole.get(0), 512)));
            assertEquals(-1, same, "torn in round " + round);
          }
        }
      } finally {
        stop.set(true);
        writer.join();
      }
    }
  }

  private static byte[] repeated(byte value, int count) {
    byte[] bytes = new byte[count];
    Arrays.fill(bytes, value);
    return bytes;
  }

  /** Every operation against an array, with buffers of all kinds. */
  @ParameterizedTest
  @CsvSource({
    "WRITEBACK, 1",
    "WRITEBACK, 2",
    "NONE, 1",
    "NONE, 2",
    "NONE, 3",
    "NONE, 4",
    "NONE, 20261122"
  })
  void agreesWithAnArray(CacheMode mode, long seed) throws IOException {
    Random random = new Random(seed);
    byte[] model = new byte[MODEL_BYTES];
    int length = 0;
    try (FileStorage file = FileStorage.create(path(mode), mode)) {
      for (int step = 0; step < 400; step++) {
        int at = position(random, MODEL_BYTES);
        int end = at + Math.min(MODEL_BYTES - at, 1 + random.nextInt(20_000));
        switch (random.nextInt(8)) {
          case 0, 1, 2 -> {
            byte[] bytes = new byte[end - at];
            random.nextBytes(bytes);
            ByteBuffer source = buffer(random, bytes.length);
            source.duplicate().put(bytes);
            file.write(at, random.nextBoolean() ? source : source.asReadOnlyBuffer());
            System.arraycopy(bytes, 0, model, at, bytes.length);
            length = Math.max(length, end);
          }
          case 3 -> {
            int kept = position(random, MODEL_BYTES);
            file.setLength(kept);
            Arrays.fill(model, Math.min(kept, length), MODEL_BYTES, (byte) 0);
            length = kept;
          }
          case 4 -> {
            file.punchHole(at, end - at);
            Arrays.fill(model, at, end, (byte) 0);
          }
          case 5 -> {
            file.zeroRange(at, end - at);
            Arrays.fill(model, at, end, (byte) 0);
            length = Math.max(length, end);
          }
          case 6 -> {
            file.allocate(at, end - at);
            length = Math.max(length, end);
            file.prefetch(at, end - at);
          }
          default -> file.sync();
        }
        String context = "seed " + seed + " step " + step;
        assertEquals(length, file.length(), context);
        int readAt = position(random, MODEL_BYTES);
        ByteBuffer target = buffer(random, 1 + random.nextInt(30_000));
        int limit = target.limit();
        int expected = Math.max(0, Math.min(target.remaining(), length - readAt));
        int start = target.position();
        assertEquals(expected, file.read(readAt, target), context);
        assertEquals(start + expected, target.position(), context);
        assertEquals(limit, target.limit(), context);
        byte[] got = new byte[expected];
        target.get(start, got);
        assertArrayEquals(Arrays.copyOfRange(model, readAt, readAt + expected), got, context);
      }
    }
  }

  /** Often aligned, as guests are. */
  private static int position(Random random, int bound) {
    int at = random.nextInt(bound);
    return switch (random.nextInt(3)) {
      case 0 -> at & -4096;
      case 1 -> at & -512;
      default -> at;
    };
  }

  private static ByteBuffer buffer(Random random, int bytes) {
    int skipped = random.nextInt(5);
    return switch (random.nextInt(3)) {
      case 0 -> ByteBuffer.allocate(bytes + 7).position(skipped).limit(skipped + bytes);
      case 1 -> ByteBuffer.allocateDirect(bytes + 7).position(skipped).limit(skipped + bytes);
      default -> ByteBuffer.allocateDirect(bytes + 8192).alignedSlice(4096).slice(0, bytes);
    };
  }

  /** Each thread owns every fourth run of 100 bytes: blocks are shared by all of them. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2})
  void concurrentWritesIntoOneBlockLoseNothing(long seed) throws Exception {
    int runs = 200;
    byte[][] expected = new byte[runs][];
    try (FileStorage file = FileStorage.create(directPath(), CacheMode.NONE)) {
      inParallel(
          4,
          t -> {
            Random random = new Random(seed * 31 + t);
            for (int round = 0; round < 3; round++) {
              for (int i = t; i < runs; i += 4) {
                byte[] bytes = new byte[100];
                random.nextBytes(bytes);
                file.write(i * 100L, ByteBuffer.wrap(bytes));
                expected[i] = bytes;
              }
            }
          });
      assertEquals(runs * 100L, file.length());
      ByteBuffer all = ByteBuffer.allocate(runs * 100);
      file.read(0, all);
      for (int i = 0; i < runs; i++) {
        byte[] got = Arrays.copyOfRange(all.array(), i * 100, (i + 1) * 100);
        assertArrayEquals(expected[i], got, "run " + i + " seed " + seed);
      }
    }
  }

  @Test
  void tellsHolesFromData(@TempDir Path dir) throws IOException {
    try (FileStorage file = FileStorage.create(dir.resolve("holes"), CacheMode.WRITEBACK)) {
      file.setLength(3 << 20);
      file.write(1 << 20, ByteBuffer.wrap(new byte[] {1})); // not yet on the disk
      assertTrue(file.isHole(0, 1 << 20));
      assertFalse(file.isHole(0, (1 << 20) + 4096));
      assertFalse(file.isHole(1 << 20, 1));
      assertTrue(file.isHole(2 << 20, 1 << 20));
      assertTrue(file.isHole(5 << 20, 1), "past the end");
      assertEquals(1 << 20, file.nextData(4096, 3 << 20));
      assertEquals(8192, file.nextData(4096, 8192), "no further than asked");
      assertEquals((1 << 20) + 1, file.nextData((1 << 20) + 1, 3 << 20));
      assertEquals(3 << 20, file.nextData(2 << 20, 3 << 20));
      assertEquals(4096, file.nextHole(4096, 3 << 20));
      long dataEnd = file.nextHole(1 << 20, 3 << 20);
      assertTrue(dataEnd > 1 << 20 && dataEnd <= 2 << 20, "data ends at " + dataEnd);
      assertEquals((1 << 20) + 1, file.nextHole(1 << 20, (1 << 20) + 1), "no further than asked");
      assertEquals(5 << 20, file.nextHole(5 << 20, 6 << 20), "past the end");
      file.punchHole(1 << 20, 1 << 20);
      assertTrue(file.isHole(0, 3 << 20));
    }
  }

  /** Whatever the file system can do: it says no and changes nothing, or yes and has done it. */
  @ParameterizedTest
  @EnumSource
  void zeroesByTheHostOrNotAtAll(ZeroMode mode, @TempDir Path dir) throws IOException {
    try (FileStorage file = FileStorage.create(dir.resolve("zeroed"), CacheMode.WRITEBACK)) {
      byte[] expected = new byte[40_000];
      Arrays.fill(expected, (byte) 1);
      file.write(0, ByteBuffer.wrap(expected));
      if (file.tryZero(5000, 30_000, mode)) {
        Arrays.fill(expected, 5000, 35_000, (byte) 0);
      }
      ByteBuffer all = ByteBuffer.allocate(expected.length);
      file.read(0, all);
      assertArrayEquals(expected, all.array());
      assertTrue(file.tryZero(0, 0, mode));
      assertTrue(file.tryZero(40_000, 4096, ZeroMode.MAY_UNMAP), "past the end");
      assertEquals(40_000, file.length());
    }
  }

  @Test
  void wholeBlockIsNotUndoneByAWriteToAPartOfIt() throws Exception {
    try (FileStorage file = FileStorage.create(directPath(), CacheMode.NONE)) {
      file.setLength(8192);
      for (int round = 1; round <= 60; round++) {
        byte value = (byte) round;
        inParallel(
            2,
            t -> {
              ByteBuffer bytes = ByteBuffer.allocateDirect(12288).alignedSlice(4096).slice(0, 4096);
              if (t == 0) {
                for (int i = 0; i < 4096; i++) {
                  bytes.put(i, value);
                }
                file.write(4096, bytes);
              } else {
                file.write(4096 + 1000, bytes.slice(0, 96));
              }
            });
        ByteBuffer block = ByteBuffer.allocate(4096);
        file.read(4096, block);
        for (int i = 0; i < 4096; i++) {
          boolean shared = i >= 1000 && i < 1096;
          assertTrue(block.get(i) == value || (shared && block.get(i) == 0), "round " + round);
        }
      }
    }
  }

  /** Growing by pieces that share the last block never shows a length that nobody wrote. */
  @Test
  void lengthWithDirectAccessIsNeverMoreThanWasAskedFor() throws Exception {
    try (FileStorage file = FileStorage.create(directPath(), CacheMode.NONE)) {
      AtomicLong asked = new AtomicLong();
      ConcurrentLinkedQueue<String> violations = new ConcurrentLinkedQueue<>();
      inParallel(
          2,
          t -> {
            for (int i = 0; i < 300; i++) {
              if (t == 0) {
                asked.addAndGet(1000);
                file.write(i * 1000L, ByteBuffer.allocate(1000));
              } else {
                long length = file.length();
                if (length > asked.get()) {
                  violations.add(length + " of " + asked.get());
                }
              }
            }
          });
      assertEquals(List.of(), List.copyOf(violations));
      assertEquals(300_000, file.length());
    }
  }

  @Test
  void punchedHoleGivesSpaceBack() throws IOException {
    try (FileStorage file = FileStorage.create(temp.resolve("disk"), CacheMode.WRITEBACK)) {
      file.write(0, ByteBuffer.wrap(random(3, 1 << 20)));
      file.sync();
      long before = file.diskBytes();
      file.punchHole(0, 1 << 19);
      file.sync();
      assertTrue(file.diskBytes() < before, "a hole takes as much space as bytes");
      assertEquals(1 << 20, file.length());
    }
  }

  @Test
  void punchingPastTheEndKeepsTheLength() throws IOException {
    try (FileStorage file = FileStorage.create(temp.resolve("disk"), CacheMode.WRITEBACK)) {
      file.write(0, ByteBuffer.allocate(100));
      file.punchHole(50, 5000);
      file.punchHole(5000, 5000);
      assertEquals(100, file.length());
    }
  }

  @Test
  void openingWhatIsNotThereSaysSo() {
    Path missing = temp.resolve("none.qcow2");
    fails("there is no file " + missing, () -> open(missing, false));
  }

  @Test
  void openingADirectorySaysSo() {
    fails(temp + " is a directory, not an image file", () -> open(temp, false));
    fails(temp + " is a directory, not an image file", () -> open(temp, true));
  }

  @Test
  void openingADeviceOfCharactersSaysSo() {
    Path device = Path.of("/dev/null");
    fails("/dev/null is neither a regular file nor a block device", () -> open(device, true));
  }

  @Test
  void openingACircleOfLinksNamesTheReason() throws IOException {
    Path link = temp.resolve("link");
    Files.createSymbolicLink(link, link);
    fails("opening " + link + ": Too many levels of symbolic links", () -> open(link, true));
  }

  @Test
  void createdFileMustBeNew() throws IOException {
    Path path = temp.resolve("disk");
    Files.createFile(path);
    fails(path + " exists already", () -> FileStorage.create(path, CacheMode.WRITEBACK).close());
    assertTrue(Files.exists(path));
  }

  @Test
  void fileSystemWithoutDirectAccessIsNamed() {
    Path path = Path.of("/proc/version");
    fails(
        "the file system of /proc/version does not support O_DIRECT:"
            + " use cache mode writeback or writethrough",
        () -> FileStorage.open(path, true, CacheMode.NONE).close());
  }

  @Test
  void errorNamesOperationRangeFileAndReason() throws IOException {
    Path path = temp.resolve("disk.qcow2");
    FileStorage.create(path, CacheMode.WRITEBACK).close();
    try (FileStorage file = open(path, true)) {
      fails(
          "writing 65536 bytes at 0x50000 of disk.qcow2: Bad file descriptor",
          () -> file.write(0x50000, ByteBuffer.allocate(65536)));
    }
  }

  @Test
  void closedFileRefusesEverything() throws IOException {
    FileStorage file = FileStorage.create(temp.resolve("disk"), CacheMode.WRITEBACK);
    file.close();
    file.close();
    fails("disk is closed", () -> file.write(0, ByteBuffer.allocate(1)));
    fails("disk is closed", file::sync);
    fails("disk is closed", file::length);
  }

  @Test
  void sameFileHasOneIdentityWhateverThePath() throws IOException {
    Path path = temp.resolve("disk");
    Path link = temp.resolve("link");
    Files.createSymbolicLink(link, path);
    try (FileStorage one = FileStorage.create(path, CacheMode.WRITEBACK);
        FileStorage two = open(link, true);
        FileStorage other = FileStorage.create(temp.resolve("other"), CacheMode.WRITEBACK)) {
      assertEquals(one.identity(), two.identity());
      assertNotEquals(one.identity(), other.identity());
      assertTrue(two.readOnly());
      assertFalse(one.readOnly());
    }
  }

  private static FileStorage open(Path path, boolean readOnly) throws IOException {
    return FileStorage.open(path, readOnly, CacheMode.WRITEBACK);
  }

  private static void fails(String message, Executable call) {
    assertEquals(message, assertThrows(IOException.class, call).getMessage());
  }

  private static byte[] random(long seed, int bytes) {
    byte[] result = new byte[bytes];
    new Random(seed).nextBytes(result);
    return result;
  }

  @FunctionalInterface
  private interface Work {
    void run(int thread) throws IOException;
  }

  private static void inParallel(int count, Work work) throws InterruptedException {
    ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
    List<Thread> threads = new ArrayList<>();
    for (int t = 0; t < count; t++) {
      int index = t;
      Runnable body =
          () -> {
            try {
              work.run(index);
            } catch (IOException | RuntimeException | Error e) {
              failures.add(e);
            }
          };
      threads.add(Thread.ofPlatform().start(body));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertEquals(List.of(), List.copyOf(failures));
  }

  @Test
  void readsAtOnceWhatIsInMemoryAndNothingElse() throws IOException {
    Path path = temp.resolve("tried");
    Files.write(path, new byte[] {1, 2, 3, 4, 5, 6, 7, 8});
    try (FileStorage file = FileStorage.open(path, true, CacheMode.WRITEBACK)) {
      ByteBuffer target = ByteBuffer.allocateDirect(4);
      file.read(2, target); // now it is in memory for certain
      target.clear();
      if (file.tryRead(2, target)) { // a file system may not know, as tmpfs once did not
        assertEquals(0x03040506, target.flip().getInt());
      }
      target.clear();
      assertFalse(file.tryRead(6, target), "the file ends before");
      assertEquals(4, target.remaining());
      assertFalse(file.tryRead(2, ByteBuffer.allocate(4)), "not direct");
    }
  }
}
