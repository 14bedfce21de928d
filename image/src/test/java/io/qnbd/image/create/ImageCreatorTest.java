package io.qnbd.image.create;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.Preallocation;
import io.qnbd.image.check.Checker;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

final class ImageCreatorTest {
  private static CreateOptions qcow2(
      long virtualBytes, int clusterBytes, int version, int refcountBits, boolean preallocate) {
    return new CreateOptions(
        ImageFormat.QCOW2,
        virtualBytes,
        clusterBytes,
        version,
        refcountBits,
        version == 3,
        false,
        null,
        null,
        preallocate ? Preallocation.METADATA : Preallocation.OFF);
  }

  private static CreateOptions overlay(String backing, int clusterBytes, int version) {
    return new CreateOptions(
        ImageFormat.QCOW2,
        1L << 20,
        clusterBytes,
        version,
        16,
        false,
        false,
        Path.of(backing),
        ImageFormat.RAW,
        Preallocation.OFF);
  }

  private static Header header(MemoryStorage file) throws IOException {
    ByteBuffer start = ByteBuffer.wrap(file.bytes(0, 72));
    int clusterBytes = Header.clusterBytes("new", start);
    return Header.parse("new", ByteBuffer.wrap(file.bytes(0, clusterBytes)), file.length());
  }

  static Stream<CreateOptions> shapes() {
    List<CreateOptions> shapes = new ArrayList<>();
    for (int clusterBytes : new int[] {512, 4096, 65536, 2 << 20}) {
      for (long virtualBytes : new long[] {0, 512, 5 << 20, (100L << 30) + 512}) {
        shapes.add(qcow2(virtualBytes, clusterBytes, 2, 16, false));
        for (int refcountBits : new int[] {1, 2, 8, 16, 64}) {
          shapes.add(qcow2(virtualBytes, clusterBytes, 3, refcountBits, false));
        }
      }
      shapes.add(qcow2(5 << 20, clusterBytes, 2, 16, true));
      for (int refcountBits : new int[] {1, 4, 32, 64}) {
        shapes.add(qcow2((5 << 20) + 1, clusterBytes, 3, refcountBits, true));
      }
    }
    return shapes.stream();
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void newImagesAreCleanAndAsAsked(CreateOptions options) throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(file, options);
    CheckReport report = Checker.check(file);
    assertTrue(report.clean(), report::toString);
    assertEquals(file.length(), report.imageEndOffset());
    assertEquals(
        options.preallocateMetadata() ? report.totalClusters() : 0, report.allocatedClusters());
    Header header = header(file);
    assertEquals(options.version(), header.version());
    assertEquals(options.clusterBytes(), header.clusterBytes());
    assertEquals(options.refcountBits(), header.refcountBits());
    assertEquals(options.lazyRefcounts(), header.lazyRefcounts());
    long virtualBytes = Objects.requireNonNull(options.virtualBytes());
    assertEquals((virtualBytes + 511) / 512 * 512, header.virtualBytes());
    header.requireWritable("new");
  }

  @Test
  void largeImagesTakeLittleSpace() throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(file, CreateOptions.qcow2(64L << 40));
    assertTrue(file.allocatedBytes() < 1 << 20, file.allocatedBytes() + " bytes");
    assertTrue(Checker.check(file).clean());
  }

  @ParameterizedTest
  @MethodSource("overlays")
  void overlaysNameTheirBackingFile(CreateOptions options) throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(file, options);
    assertEquals(String.valueOf(options.backingFile()), header(file).backingFile());
    assertEquals("raw", header(file).backingFormat());
    assertTrue(Checker.check(file).clean());
  }

  static Stream<CreateOptions> overlays() {
    return Stream.of(
        overlay("base.raw", 512, 2),
        overlay("/somewhere/base file.raw", 512, 3),
        overlay("./odd:name", 4096, 3),
        overlay("d/" + "n".repeat(1021), 4096, 3),
        overlay("base.raw", 65536, 3));
  }

  @Test
  void makesRawImages() throws IOException {
    MemoryStorage file = new MemoryStorage();
    ImageCreator.create(file, CreateOptions.raw(1001));
    assertEquals(1001, file.length());
  }

  private static void assertRefused(String expected, CreateOptions options) {
    IOException e =
        assertThrows(
            IOException.class, () -> ImageCreator.create(new MemoryStorage("new"), options));
    String message = String.valueOf(e.getMessage());
    assertTrue(message.startsWith("creating new: "), message);
    assertTrue(message.contains(expected), message);
  }

  private static CreateOptions options(
      ImageFormat format,
      @Nullable Long virtualBytes,
      @Nullable String backing,
      @Nullable ImageFormat backingFormat,
      boolean preallocate) {
    return new CreateOptions(
        format,
        virtualBytes,
        65536,
        3,
        16,
        false,
        false,
        backing == null ? null : Path.of(backing),
        backingFormat,
        preallocate ? Preallocation.METADATA : Preallocation.OFF);
  }

  @Test
  void refusesWhatCannotBeMade() {
    assertRefused("cluster size is 1000", qcow2(0, 1000, 3, 16, false));
    assertRefused("cluster size is 256", qcow2(0, 256, 3, 16, false));
    assertRefused("cluster size is 4194304", qcow2(0, 4 << 20, 3, 16, false));
    assertRefused("version is 4", qcow2(0, 512, 4, 16, false));
    assertRefused("refcounts of 3 bits", qcow2(0, 512, 3, 3, false));
    assertRefused("refcounts of 128 bits", qcow2(0, 512, 3, 128, false));
    assertRefused("version 2 images have refcounts", qcow2(0, 512, 2, 8, false));
    assertRefused("a size can't be negative", qcow2(-1, 512, 3, 16, false));
    assertRefused("too large", qcow2((128L << 30) + 1, 512, 3, 16, false));
    assertRefused("can't count so many", qcow2(128L << 30, 512, 3, 64, true));
    ImageFormat qcow2 = ImageFormat.QCOW2;
    ImageFormat raw = ImageFormat.RAW;
    assertRefused("no size", options(qcow2, null, null, null, false));
    assertRefused("format was not given", options(qcow2, 0L, "base", null, false));
    assertRefused("without a backing file", options(qcow2, 0L, null, raw, false));
    assertRefused("would hide", options(qcow2, 0L, "base", raw, true));
    assertRefused("no backing file", options(raw, 0L, "base", raw, false));
    assertRefused("no metadata", options(raw, 0L, null, null, true));
    assertRefused("as a protocol", options(qcow2, 0L, "nbd:host", raw, false));
    assertRefused("1024 bytes", options(qcow2, 0L, "n".repeat(1024), raw, false));
    assertRefused("does not fit", overlay("n".repeat(400), 512, 3));
  }

  @Test
  void refusesAFileThatHoldsSomething() {
    MemoryStorage file = MemoryStorage.of(new byte[1]);
    assertThrows(IOException.class, () -> ImageCreator.create(file, CreateOptions.qcow2(512)));
    assertEquals(1, file.length());
  }

  @Test
  void afterAPowerCutThereIsNoImageOrAllOfIt() throws IOException {
    CreateOptions options = qcow2(1 << 20, 4096, 3, 16, true);
    CrashStorage counted = new CrashStorage(new MemoryStorage());
    ImageCreator.create(counted, options);
    Seeds.run("create", 200, seed -> cutAndLook(options, counted.operations(), seed));
  }

  private static void cutAndLook(CreateOptions options, long operations, long seed)
      throws IOException {
    SeededRandom random = new SeededRandom(seed);
    CrashStorage file = new CrashStorage(new MemoryStorage());
    file.cutAt(1 + random.below(operations));
    assertThrows(IOException.class, () -> ImageCreator.create(file, options));
    MemoryStorage found = file.cut(random);
    if (Header.hasMagic(ByteBuffer.wrap(found.bytes(0, 4)))) {
      assertTrue(Checker.check(found).clean());
      assertFalse(header(found).dirty());
    }
  }
}
