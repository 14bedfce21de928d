package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class ExportArgumentTest {

  @ParameterizedTest
  @CsvSource({
    "disk.qcow2, disk.qcow2, disk.qcow2",
    "/images/disk.qcow2, disk.qcow2, /images/disk.qcow2",
    "root=disk.qcow2, root, disk.qcow2",
    "root=/images/a=b.qcow2, root, /images/a=b.qcow2",
    "./a=b, a=b, ./a=b",
    "/images/a=b, a=b, /images/a=b",
    "=disk.qcow2, '', disk.qcow2",
    "two words=a b.qcow2, two words, a b.qcow2"
  })
  void readsNameAndPath(String text, String name, String path) {
    assertEquals(new ExportArgument(name, Path.of(path)), ExportArgument.parse(text));
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "root=", "=", "/", "a\nb=disk.qcow2", "disk\u0000.qcow2"})
  void refuses(String text) {
    assertThrows(IllegalArgumentException.class, () -> ExportArgument.parse(text));
  }

  @Test
  void refusesANameThatNoClientNeedUnderstand() {
    ExportArgument.parse("é".repeat(ExportArgument.NAME_BYTES_MAX / 2) + "=disk.qcow2");
    assertEquals(
        "an export name has 4098 bytes; NBD permits 4096",
        assertThrows(
                IllegalArgumentException.class,
                () ->
                    ExportArgument.parse(
                        "é".repeat(ExportArgument.NAME_BYTES_MAX / 2 + 1) + "=disk.qcow2"))
            .getMessage());
  }
}
