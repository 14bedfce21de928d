package io.qnbd.image.io;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.NoSpaceException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class PosixTest {
  @ParameterizedTest
  @ValueSource(ints = {Posix.ENOSPC, Posix.EDQUOT, Posix.EFBIG})
  void fullHostHasItsOwnException(int errno) {
    assertInstanceOf(NoSpaceException.class, Posix.failure("writing", errno));
  }

  @Test
  void otherErrorsCarryTheKernelsWords() {
    IOException e = Posix.failure("reading 1 byte", Posix.EIO);
    assertEquals("reading 1 byte: Input/output error", e.getMessage());
    assertEquals("Operation not supported", Posix.reason(Posix.EOPNOTSUPP));
    assertEquals("No locks available", Posix.reason(Posix.ENOLCK));
    assertEquals("Disk quota exceeded", Posix.reason(Posix.EDQUOT));
    assertEquals("Read-only file system", Posix.reason(Posix.EROFS));
  }

  /** The device /dev/full fails every write for lack of space. */
  @Test
  void errorOfAWriteIsReturnedAndTheBufferStays() {
    int fd = Posix.open(Path.of("/dev/full"), Posix.O_RDWR, 0);
    try {
      ByteBuffer heap = ByteBuffer.allocate(100);
      assertEquals(-Posix.ENOSPC, Posix.write(fd, 0, heap));
      assertEquals(0, heap.position());
      ByteBuffer direct = ByteBuffer.allocateDirect(100).position(10);
      assertEquals(-Posix.ENOSPC, Posix.write(fd, 0, direct));
      assertEquals(10, direct.position());
    } finally {
      assertEquals(0, Posix.close(fd));
    }
  }

  @Test
  void descriptorsAreNotInherited(@TempDir Path temp) throws IOException {
    int fd = Posix.open(temp.resolve("f"), Posix.O_RDWR | Posix.O_CREAT, 0600);
    assertTrue(fd >= 0);
    try {
      String info = Files.readString(Path.of("/proc/self/fdinfo/" + fd));
      String flags = info.lines().filter(line -> line.startsWith("flags:")).findFirst().orElse("");
      long value = Long.parseLong(flags.substring("flags:".length()).strip(), 8);
      assertEquals(Posix.O_CLOEXEC, value & Posix.O_CLOEXEC);
    } finally {
      assertEquals(0, Posix.close(fd));
    }
  }
}
