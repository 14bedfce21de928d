package io.qnbd.server.process;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class PidFileTest {
  @TempDir private Path directory = Path.of("");

  private List<Path> files() throws IOException {
    try (Stream<Path> files = Files.list(directory)) {
      return files.toList();
    }
  }

  @Test
  void replacesAStaleFileAndGoesAtTheEnd() throws IOException {
    Path path = Files.writeString(directory.resolve("q.pid"), "a server that was killed\n");
    PidFile file = PidFile.write(path, 4711);
    assertEquals("4711\n", Files.readString(path));
    assertEquals(List.of(path), files());
    file.remove();
    assertFalse(Files.exists(path));
    file.remove();
  }

  @Test
  void leavesTheFileOfAServerThatStartedLater() throws IOException {
    Path path = directory.resolve("q.pid");
    PidFile first = PidFile.write(path, 1);
    PidFile second = PidFile.write(path, 2);
    first.remove();
    assertEquals("2\n", Files.readString(path));
    second.remove();
    assertFalse(Files.exists(path));
  }

  @Test
  void saysWhyItCannotBeWritten() throws IOException {
    Path missing = directory.resolve("missing").resolve("q.pid");
    assertEquals(
        "writing the pid file %s: its directory is not there".formatted(missing), refusal(missing));
    assertEquals(
        "writing the pid file %s: is a directory".formatted(directory), refusal(directory));
    assertTrue(files().isEmpty());
  }

  private static String refusal(Path path) {
    return String.valueOf(
        assertThrows(IOException.class, () -> PidFile.write(path, 1)).getMessage());
  }
}
