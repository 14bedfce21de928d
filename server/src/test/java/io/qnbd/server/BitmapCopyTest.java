package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the target of a copy says while it is made, and when it is not made to its end. */
final class BitmapCopyTest {
  private static final int DISK_BYTES = 1 << 20;
  private static final int AUTOCLEAR_AT = 88;

  private final StringWriter err = new StringWriter();

  @TempDir private Path directory = Path.of("");
  private Path source = Path.of("");
  private Path target = Path.of("");

  /** Three bitmaps, of which the second is disabled; 64 KiB are dirty. */
  @BeforeEach
  void makeImages() throws IOException {
    source = directory.resolve("source.qcow2");
    target = directory.resolve("target.qcow2");
    for (Path path : List.of(source, target)) {
      DiskImages.create(path, CreateOptions.qcow2(DISK_BYTES));
    }
    try (DiskImage disk = open(source)) {
      for (String name : List.of("a", "b", "c")) {
        disk.bitmaps().add(name, 65536, true);
      }
      disk.write(65536, ByteBuffer.allocate(512));
      disk.bitmaps().disable("b");
    }
  }

  private static DiskImage open(Path path) throws IOException {
    return DiskImages.open(path, OpenOptions.DEFAULT.withFormat(ImageFormat.QCOW2));
  }

  private BitmapCopy copy(boolean skipBroken) {
    PrintWriter printer = new PrintWriter(err, true);
    return new BitmapCopy(new Terminal(printer, printer), "source", "target", skipBroken);
  }

  /** The bitmaps that the file would have, and those to believe, if all ended now. */
  private List<BitmapInfo> afterKill() throws IOException {
    Path found = Files.copy(target, directory.resolve("found.qcow2"));
    try (DiskImage disk = open(found)) {
      return disk.bitmaps().list();
    } finally {
      Files.delete(found);
    }
  }

  private static List<Long> dirty(DiskImage disk, String name) throws IOException {
    List<Long> extents = new ArrayList<>();
    disk.dirtyExtents(
        name,
        0,
        disk.virtualBytes(),
        (bytes, dirty) -> {
          extents.add(dirty ? bytes : -bytes);
          return true;
        });
    return extents;
  }

  @Test
  void aCopyThatIsKilledLeavesNothingToBelieve() throws IOException {
    try (DiskImage from = open(source)) {
      try (DiskImage to = open(target);
          BitmapCopy copy = copy(false)) {
        copy.begin(from, to);
        assertEquals(List.of(), afterKill());
        to.write(65536, ByteBuffer.allocate(512));
        to.flush();
        assertEquals(List.of(), afterKill());
        copy.finish(from);
        for (BitmapInfo each : afterKill()) {
          assertEquals(each.name().equals("b"), each.consistent(), each::toString);
        }
        assertEquals(3, afterKill().size());
      }
      try (DiskImage to = open(target)) {
        assertEquals(from.bitmaps().list(), to.bitmaps().list());
        for (String name : List.of("a", "b", "c")) {
          assertEquals(dirty(from, name), dirty(to, name));
          assertEquals(List.of(-65536L, 65536L), dirty(to, name).subList(0, 2));
        }
      }
    }
  }

  @Test
  void theOthersAreRemovedWhenOneCantBe() throws IOException {
    try (DiskImage from = open(source);
        DiskImage to = open(target)) {
      Bitmaps bitmaps = to.bitmaps();
      BitmapCopy copy = copy(false);
      copy.begin(from, to);
      bitmaps.add("c", 65536, false);
      assertThrows(IOException.class, () -> copy.finish(from));
      bitmaps.remove("a");
      IOException failed = assertThrows(IOException.class, copy::close);
      assertTrue(String.valueOf(failed.getMessage()).contains("named a"), failed::toString);
      assertEquals(List.of("c"), bitmaps.list().stream().map(BitmapInfo::name).toList());
      copy.close(); // nothing is left to do
    }
  }

  @Test
  void bitmapsThatAreNotListedAreRefusedOrLeftOut() throws IOException {
    try (FileChannel file = FileChannel.open(source, StandardOpenOption.WRITE)) {
      file.write(ByteBuffer.allocate(Long.BYTES), AUTOCLEAR_AT);
    }
    try (DiskImage from = open(source);
        DiskImage to = open(target)) {
      try (BitmapCopy copy = copy(false)) {
        IOException refused = assertThrows(IOException.class, () -> copy.begin(from, to));
        assertTrue(String.valueOf(refused.getMessage()).contains("--skip-broken-bitmaps"));
      }
      assertFalse(err.toString().contains("warning"));
      try (BitmapCopy copy = copy(true)) {
        copy.begin(from, to);
        copy.finish(from);
      }
      assertTrue(err.toString().contains("warning"));
      assertEquals(List.of(), to.bitmaps().list());
    }
  }
}
