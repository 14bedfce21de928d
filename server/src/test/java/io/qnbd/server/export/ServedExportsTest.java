package io.qnbd.server.export;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.OpenOptions;
import io.qnbd.protocol.WireLimits;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ServedExportsTest {
  @TempDir private Path directory;
  private DiskImage image;

  @BeforeEach
  void open() throws IOException {
    Path path = directory.resolve("disk.qcow2");
    DiskImages.create(path, CreateOptions.qcow2(1 << 20));
    image = DiskImages.open(path, OpenOptions.DEFAULT);
  }

  @AfterEach
  void close() throws IOException {
    image.close();
  }

  private Export export(String name) {
    return new Export(name, "", image, CacheMode.WRITEBACK);
  }

  private static List<String> names(ServedExports served) {
    return served.exports().stream().map(export -> export.settings().name()).toList();
  }

  @Test
  void aReplacementTakesThePlaceOfTheOld() {
    Export b = export("b");
    ServedExports served = ServedExports.of(List.of(export("a"), b));
    served.add(export("c"));
    Export newer = export("b");
    assertTrue(served.replace(b, newer));
    assertEquals(List.of("a", "b", "c"), names(served));
    assertSame(newer, served.export("b").orElseThrow());
    assertFalse(served.replace(b, export("b")), "it is no longer served");
    assertFalse(served.remove(b), "its name is another export's now");
    assertTrue(served.remove(newer));
    assertEquals(List.of("a", "c"), names(served));
    assertThrows(IllegalArgumentException.class, () -> served.replace(newer, export("d")));
  }

  @Test
  void aNameIsServedOnce() {
    ServedExports served = ServedExports.of(List.of(export("a")));
    assertThrows(IllegalArgumentException.class, () -> served.add(export("a")));
    assertEquals(List.of("a"), names(served));
  }

  @Test
  void addingAndRemovingNeverChangesWhichDiskIsTheDefault() {
    Export a = export("a");
    ServedExports served = ServedExports.of(List.of(a));
    assertSame(a, served.export("").orElseThrow());
    served.add(export("b"));
    assertSame(a, served.export("").orElseThrow());
    served.remove(a);
    assertEquals(Optional.empty(), served.export(""), "b is another disk");
    served.add(a);
    assertSame(a, served.export("").orElseThrow());
    served.chooseDefault("b");
    assertEquals("b", served.export("").orElseThrow().settings().name());
    Export unnamed = export("");
    served.add(unnamed);
    assertSame(unnamed, served.export("").orElseThrow());
    served.chooseDefault(null);
    served.remove(unnamed);
    assertEquals(Optional.empty(), served.export(""));
  }

  @Test
  void ofSeveralNoneIsTheDefaultUnlessChosen() {
    List<Export> both = List.of(export("a"), export("b"));
    assertEquals(Optional.empty(), ServedExports.of(both).export(""));
    ServedExports chosen = ServedExports.withDefault(both, "b");
    assertSame(both.get(1), chosen.export("").orElseThrow());
    assertThrows(
        IllegalArgumentException.class, () -> ServedExports.withDefault(both, "c").export(""));
  }

  @Test
  void thereAreNoMoreThanTheProtocolsOwnLimitAllows() {
    List<Export> most = new ArrayList<>();
    for (int i = 0; i < WireLimits.EXPORTS_MAX; i++) {
      most.add(export("e" + i));
    }
    ServedExports served = ServedExports.of(most);
    Export extra = export("extra");
    assertThrows(IllegalArgumentException.class, () -> served.add(extra));
    served.remove(most.getFirst());
    served.add(extra);
    assertEquals(WireLimits.EXPORTS_MAX, served.exports().size());
  }

  @Test
  void settingsChangeUnderTheSameName() {
    Export export = export("a");
    export.configure(
        new ExportSettings("a", "new", true, Set.of("CN=x"), 3, 1, new RateLimits(1, 2)));
    assertEquals("new", export.info().description());
    assertTrue(export.settings().tlsRequired());
    assertThrows(
        IllegalArgumentException.class, () -> export.configure(ExportSettings.of("b", "")));
    assertThrows(
        IllegalArgumentException.class,
        () -> export.configure(ExportSettings.of("a", "x".repeat(5000))));
    assertEquals("new", export.settings().description());
  }
}
