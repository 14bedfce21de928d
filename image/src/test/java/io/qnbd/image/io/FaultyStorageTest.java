package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.qnbd.image.NoSpaceException;
import io.qnbd.image.io.FaultyStorage.Failure;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.EnumSet;
import org.junit.jupiter.api.Test;

final class FaultyStorageTest {
  private final MemoryStorage file = new MemoryStorage();
  private final FaultyStorage storage = new FaultyStorage(file);

  private static ByteBuffer ones(int bytes) {
    byte[] contents = new byte[bytes];
    Arrays.fill(contents, (byte) 1);
    return ByteBuffer.wrap(contents);
  }

  @Test
  void theNthOfTheListedOperationsFailsAndNoOther() throws IOException {
    storage.failOnce(EnumSet.of(Operation.WRITE), 2, Failure.IO_ERROR);
    storage.write(0, ones(512));
    storage.sync();
    assertThrows(IOException.class, () -> storage.write(512, ones(512)));
    storage.write(1024, ones(512));
    assertEquals(0, file.bytes(512, 1)[0]);
    assertEquals(1, storage.failures());
    assertEquals(3, storage.count(EnumSet.of(Operation.WRITE)));
  }

  @Test
  void failuresGoOnUntilHealed() throws IOException {
    storage.failFrom(Operation.mutating(), 1, Failure.NO_SPACE);
    assertThrows(NoSpaceException.class, () -> storage.write(0, ones(512)));
    assertThrows(NoSpaceException.class, storage::sync);
    storage.heal();
    storage.sync();
  }

  @Test
  void halfAWriteIsWholeSectors() {
    storage.failOnce(EnumSet.of(Operation.WRITE), 1, Failure.HALF_WRITTEN);
    assertThrows(IOException.class, () -> storage.write(256, ones(2048)));
    assertEquals(1024, file.length());
  }
}
