package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.NoSpaceException;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class MemoryStorageTest {
  @Test
  void behavesLikeAnArray() {
    Seeds.run("MemoryStorageTest.behavesLikeAnArray", 50, seed -> runAgainstArray(seed));
  }

  private static void runAgainstArray(long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    MemoryStorage storage = new MemoryStorage();
    byte[] model = new byte[0];
    for (int step = 0; step < 200; step++) {
      int at = random.below(40_000);
      int bytes = (int) random.skewed(0, 20_000);
      switch (random.below(5)) {
        case 0 -> {
          model = Arrays.copyOf(model, at);
          storage.setLength(at);
        }
        case 1 -> {
          int inside = Math.min(bytes, Math.max(0, model.length - at));
          if (inside > 0) {
            Arrays.fill(model, at, at + inside, (byte) 0);
            storage.punchHole(at, inside);
          }
        }
        case 2 -> {
          model = bytes == 0 ? model : Arrays.copyOf(model, Math.max(model.length, at + bytes));
          if (bytes > 0) {
            Arrays.fill(model, at, at + bytes, (byte) 0);
          }
          storage.zeroRange(at, bytes);
        }
        default -> {
          byte[] data = random.bytes(bytes);
          model = bytes == 0 ? model : Arrays.copyOf(model, Math.max(model.length, at + bytes));
          System.arraycopy(data, 0, model, bytes == 0 ? 0 : at, bytes);
          storage.write(at, ByteBuffer.wrap(data));
        }
      }
      assertEquals(model.length, storage.length());
      assertArrayEquals(model, storage.bytes(0, model.length));
      if (random.chance(5)) {
        MemoryStorage original = storage;
        storage = original.copy();
        original.setLength(0);
      }
    }
  }

  @Test
  void sparseFilesOfManyGibTakeOnlyWhatIsWritten() throws IOException {
    MemoryStorage storage = new MemoryStorage();
    storage.setLength(1L << 45);
    storage.write(1L << 44, ByteBuffer.wrap(new byte[] {1}));
    assertEquals(MemoryStorage.CHUNK_BYTES, storage.allocatedBytes());
    storage.punchHole(0, 1L << 45);
    assertEquals(0, storage.allocatedBytes());
  }

  @Test
  void aFullFileTakesWhatFitsAndThrows() throws IOException {
    MemoryStorage storage = new MemoryStorage();
    storage.limitCapacity(8192);
    ByteBuffer source = ByteBuffer.allocate(10_000);
    Arrays.fill(source.array(), (byte) 7);
    assertThrows(NoSpaceException.class, () -> storage.write(4000, source));
    assertEquals(8192, storage.length());
    assertEquals(7, storage.bytes(8191, 1)[0]);
    storage.write(0, ByteBuffer.allocate(8192));
    assertThrows(NoSpaceException.class, () -> storage.allocate(8192, 1));
    storage.punchHole(0, 4096);
    storage.write(8192, ByteBuffer.wrap(new byte[] {1}));
  }

  @Test
  void goesToARealFileAndBack(@TempDir Path directory) throws IOException {
    MemoryStorage storage = new MemoryStorage();
    storage.write(70_000, ByteBuffer.wrap(new SeededRandom(1).bytes(9000)));
    storage.setLength(1_000_001);
    Path path = directory.resolve("file");
    storage.writeTo(path);
    assertArrayEquals(storage.bytes(0, 1_000_001), Files.readAllBytes(path));
    MemoryStorage back = MemoryStorage.of(path);
    assertArrayEquals(storage.bytes(0, 1_000_001), back.bytes(0, 1_000_001));
    assertEquals(storage.length(), back.length());
    assertTrue(back.allocatedBytes() <= storage.allocatedBytes());
  }
}
