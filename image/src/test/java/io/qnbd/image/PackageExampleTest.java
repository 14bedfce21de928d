package io.qnbd.image;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The example of the package's documentation compiles, and does what it says. */
final class PackageExampleTest {
  private static final String BEFORE =
      """
      import static java.nio.charset.StandardCharsets.UTF_8;
      import io.qnbd.image.*;
      import java.nio.ByteBuffer;
      import java.nio.file.Path;
      class Example {
        static void print(String text) { System.out.print(text); }
        public static void main(String[] arguments) throws Exception {
          Path directory = Path.of(arguments[0]);
      """;

  private static final String BEHIND = "\n  }\n}\n";

  @Test
  void readsWhatItWroteAndKeepsWhatWasThereBefore(@TempDir Path directory) throws Exception {
    List<String> lines =
        Files.readAllLines(Path.of("src/main/java/io/qnbd/image/package-info.java"));
    int begin = lines.indexOf(" * {@snippet :") + 1;
    int end = begin + lines.subList(begin, lines.size()).indexOf(" * }") + 1;
    assertTrue(begin > 0 && end - begin <= 12, "short enough to be read");
    String example =
        lines.subList(begin, end).stream()
            .map(line -> line.substring(2))
            .collect(Collectors.joining("\n"));
    Path source = Files.writeString(directory.resolve("Example.java"), BEFORE + example + BEHIND);
    Path printed = directory.resolve("printed");
    Process program =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home", ""), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty("java.class.path", ""),
                source.toString(),
                directory.toString())
            .redirectOutput(printed.toFile())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    assertEquals(0, program.waitFor(), "it has said why");
    assertEquals("new", Files.readString(printed));

    OpenOptions before = OpenOptions.DEFAULT.withReadOnly(true).withSnapshot("before");
    try (DiskImage disk = DiskImages.open(directory.resolve("disk.qcow2"), before)) {
      byte[] bytes = new byte[3];
      disk.read(4096, ByteBuffer.wrap(bytes));
      assertEquals("old", new String(bytes, StandardCharsets.UTF_8));
    }
  }
}
