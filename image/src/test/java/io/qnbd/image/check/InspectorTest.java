package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.MemoryStorage;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

final class InspectorTest {
  private static ImageReport inspect(Sample sample, @Nullable ImageFormat format)
      throws IOException {
    return Inspector.inspect(
        Path.of("dir/disk.qcow2"), MemoryStorage.of(sample.contents()), format, 12345);
  }

  private static ImageReport.Qcow2Details details(Sample sample) throws IOException {
    return Objects.requireNonNull(inspect(sample, null).qcow2());
  }

  @Test
  void describesAnOverlayWithBitmaps() throws IOException {
    ImageReport report = inspect(Sample.load("v3-bitmaps"), null);
    assertEquals(ImageFormat.QCOW2, report.format());
    assertEquals(1 << 20, report.virtualBytes());
    assertEquals(49184, report.fileBytes());
    assertEquals(12345, report.diskBytes());
    assertEquals(
        new ImageReport.Qcow2Details(
            3,
            4096,
            16,
            false,
            false,
            true,
            false,
            "none",
            "zlib",
            List.of(),
            List.of("lazy refcounts"),
            List.of("bitmaps"),
            "b.raw",
            "raw",
            null,
            List.of(),
            List.of(new ImageReport.Bitmap("bm", 4096, false, true))),
        report.qcow2());
  }

  @Test
  void listsSnapshots() throws IOException {
    ImageReport.Qcow2Details details = details(Sample.load("v3-compressed"));
    assertEquals(64, details.refcountBits());
    assertEquals(
        List.of("1 eins", "2 zwei"),
        details.snapshots().stream().map(s -> s.id() + " " + s.name()).toList());
    ImageReport.Snapshot first = details.snapshots().get(0);
    assertEquals(192 << 10, first.virtualBytes());
    assertEquals(0, first.vmStateBytes());
    assertTrue(first.taken().toString().startsWith("20"), first.taken()::toString);
  }

  @Test
  void describesWhatCannotBeOpened() throws IOException {
    Sample sample = Sample.load("v3-compressed");
    sample.set(
        HeaderLayout.INCOMPATIBLE_AT,
        FeatureBits.DIRTY
            | FeatureBits.CORRUPT
            | FeatureBits.DATA_FILE
            | FeatureBits.COMPRESSION_TYPE
            | 1L << 40);
    sample.bytes().putInt(HeaderLayout.CRYPT_METHOD_AT, 2);
    sample.bytes().put(HeaderLayout.COMPRESSION_TYPE_AT, (byte) 1);
    ImageReport.Qcow2Details details = details(sample);
    assertTrue(details.dirty());
    assertTrue(details.corrupt());
    assertEquals("luks", details.encryption());
    assertEquals("zstd", details.compression());
    assertEquals(
        List.of("dirty bit", "corrupt bit", "external data file", "compression type", "bit 40"),
        details.incompatibleFeatures());
  }

  @Test
  void readsAsRawWhatItIsToldTo() throws IOException {
    ImageReport report = inspect(Sample.load("v2-snapshot"), ImageFormat.RAW);
    assertEquals(ImageFormat.RAW, report.format());
    assertEquals(28672, report.virtualBytes());
    assertNull(report.qcow2());
  }

  @Test
  void takesAFileWithoutTheMagicAsRaw() throws IOException {
    Sample sample = Sample.of(new byte[3]);
    assertEquals(ImageFormat.RAW, inspect(sample, null).format());
    assertThrows(CorruptImageException.class, () -> inspect(sample, ImageFormat.QCOW2));
  }
}
