package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class CrashStorageTest {
  private static final int SECTOR = CrashStorage.SECTOR_BYTES;

  private static ByteBuffer filled(int bytes, int value) {
    byte[] contents = new byte[bytes];
    Arrays.fill(contents, (byte) value);
    return ByteBuffer.wrap(contents);
  }

  @Test
  void keepsWhatWasSynced() throws IOException {
    CrashStorage storage = new CrashStorage(new MemoryStorage());
    storage.write(100, filled(3000, 1));
    storage.sync();
    for (int seed = 0; seed < 100; seed++) {
      MemoryStorage file = storage.cut(new SeededRandom(seed));
      assertArrayEquals(storage.contents().bytes(0, 3100), file.bytes(0, 3100));
      assertEquals(3100, file.length());
    }
  }

  @Test
  void everyMixOfTwoUnsyncedWritesIsFound() throws IOException {
    CrashStorage storage = new CrashStorage(MemoryStorage.of(new byte[2 * SECTOR]));
    storage.write(0, filled(2 * SECTOR, 1));
    storage.write(0, filled(2 * SECTOR, 2));
    Set<List<Byte>> found = new HashSet<>();
    for (int seed = 0; seed < 1000; seed++) {
      byte[] bytes = storage.cut(new SeededRandom(seed)).bytes(0, 2 * SECTOR);
      assertEquals(bytes[0], bytes[SECTOR - 1]);
      assertEquals(bytes[SECTOR], bytes[2 * SECTOR - 1]);
      found.add(List.of(bytes[0], bytes[SECTOR]));
    }
    assertEquals(9, found.size());
  }

  @Test
  void growthIsLostOrKeptAndReadsAsZeroes() throws IOException {
    CrashStorage storage = new CrashStorage(MemoryStorage.of(new byte[SECTOR]));
    storage.write(4 * SECTOR, filled(100, 1));
    storage.setLength(8 * SECTOR);
    Set<Long> lengths = new HashSet<>();
    for (int seed = 0; seed < 1000; seed++) {
      MemoryStorage file = storage.cut(new SeededRandom(seed));
      lengths.add(file.length());
      assertArrayEquals(new byte[3 * SECTOR], file.bytes(SECTOR, 3 * SECTOR));
    }
    assertEquals(Set.of(1L * SECTOR, 4L * SECTOR + 100, 8L * SECTOR), lengths);
  }

  @Test
  void aKeptShorteningHidesWhatWasThereBefore() throws IOException {
    CrashStorage storage = new CrashStorage(MemoryStorage.of(filled(4 * SECTOR, 1).array()));
    storage.setLength(SECTOR);
    storage.setLength(4 * SECTOR);
    Set<Byte> found = new HashSet<>();
    for (int seed = 0; seed < 300; seed++) {
      MemoryStorage file = storage.cut(new SeededRandom(seed));
      assertEquals(1, file.bytes(0, 1)[0]);
      found.add(file.bytes(3 * SECTOR, 1)[0]);
    }
    assertEquals(Set.of((byte) 0, (byte) 1), found);
    storage.sync();
    assertEquals(0, storage.cut(new SeededRandom(1)).bytes(3 * SECTOR, 1)[0]);
  }

  @Test
  void punchedSectorsAreOldOrZero() throws IOException {
    CrashStorage storage = new CrashStorage(MemoryStorage.of(filled(4 * SECTOR, 1).array()));
    storage.punchHole(SECTOR, 2 * SECTOR);
    Set<Byte> found = new HashSet<>();
    for (int seed = 0; seed < 100; seed++) {
      found.add(storage.cut(new SeededRandom(seed)).bytes(SECTOR, 1)[0]);
    }
    assertEquals(Set.of((byte) 0, (byte) 1), found);
    storage.sync();
    assertEquals(0, storage.cut(new SeededRandom(1)).bytes(2 * SECTOR, 1)[0]);
  }

  @Test
  void everythingFailsAfterTheCut() throws IOException {
    CrashStorage storage = new CrashStorage(new MemoryStorage());
    storage.cutAt(3);
    storage.write(0, filled(SECTOR, 1));
    storage.sync();
    assertThrows(PowerCut.class, () -> storage.write(0, filled(SECTOR, 2)));
    assertThrows(PowerCut.class, storage::sync);
    assertThrows(PowerCut.class, () -> storage.read(0, ByteBuffer.allocate(1)));
    assertTrue(storage.isCut());
    Set<Byte> found = new HashSet<>();
    for (int seed = 0; seed < 100; seed++) {
      found.add(storage.cut(new SeededRandom(seed)).bytes(0, 1)[0]);
    }
    assertEquals(Set.of((byte) 1, (byte) 2), found);
  }

  @Test
  void aSyncThatIsCutMakesNothingDurable() throws IOException {
    CrashStorage storage = new CrashStorage(MemoryStorage.of(new byte[SECTOR]));
    storage.cutAt(2);
    storage.write(0, filled(SECTOR, 1));
    assertThrows(PowerCut.class, storage::sync);
    Set<Byte> found = new HashSet<>();
    for (int seed = 0; seed < 100; seed++) {
      found.add(storage.cut(new SeededRandom(seed)).bytes(0, 1)[0]);
    }
    assertEquals(Set.of((byte) 0, (byte) 1), found);
  }
}
