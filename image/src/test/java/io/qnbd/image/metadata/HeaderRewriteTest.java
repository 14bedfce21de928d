package io.qnbd.image.metadata;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.Preallocation;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.create.ImageCreator;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

final class HeaderRewriteTest {
  private static MemoryStorage image() throws IOException {
    MemoryStorage file = new MemoryStorage("test.qcow2");
    ImageCreator.create(file, CreateOptions.qcow2(1 << 20));
    return file;
  }

  private static Header header(MemoryStorage file) throws IOException {
    return ImageFile.of(file).readHeader();
  }

  private static Header random(Header old, SeededRandom random) {
    List<HeaderExtension> extensions = new ArrayList<>(old.extensions());
    extensions.removeIf(
        extension -> extension.type() != HeaderExtension.FEATURE_NAMES || random.chance(20));
    if (random.chance(60)) {
      extensions.addFirst(HeaderExtension.ofText(HeaderExtension.BACKING_FORMAT, "raw"));
    }
    if (random.chance(30)) {
      extensions.add(HeaderExtension.ofText(0x1234, "x".repeat(random.below(100))));
    }
    String name = random.chance(70) ? "b".repeat(random.between(1, 900)) : null;
    return old.toBuilder()
        .extensions(extensions)
        .backingFile(name)
        .virtualBytes(random.between(0, 2048) * 512L)
        .build();
  }

  /** What matters of a header: all but the names of its features. */
  private static Header bare(Header header) {
    List<HeaderExtension> extensions =
        header.extensions().stream()
            .filter(extension -> extension.type() != HeaderExtension.FEATURE_NAMES)
            .toList();
    return header.toBuilder().extensions(extensions).build();
  }

  @Test
  void aPowerCutLeavesTheOldHeaderOrTheNew() {
    Seeds.run(
        "HeaderRewrite",
        Seeds.count("qnbd.headers", 40),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          MemoryStorage file = image();
          for (int step = 0; step < 4; step++) {
            Header old = header(file);
            Header next = random(old, random);
            List<MemoryStorage> cuts = new ArrayList<>();
            CrashStorage storage = new CrashStorage(file);
            storage.watch((_, cuttable) -> {
              for (int i = 0; i < 3; i++) {
                cuts.add(cuttable.cut(random));
              }
            });
            HeaderRewrite.write(storage, next);
            storage.watch(null);
            file = storage.cut(random);
            assertEquals(next, header(file));
            for (MemoryStorage cut : cuts) {
              Header found = bare(header(cut));
              assertTrue(
                  found.equals(bare(old)) || found.equals(bare(next)), () -> "found " + found);
            }
          }
        });
  }

  @Test
  void refusesANameThatHasNoRoom() throws IOException {
    MemoryStorage file = new MemoryStorage("test.qcow2");
    ImageCreator.create(
        file,
        new CreateOptions(
            ImageFormat.QCOW2, 1L << 20, 512, 3, 16, false, false, null, null, Preallocation.OFF));
    Header header = header(file).toBuilder().backingFile("b".repeat(600)).build();
    assertThrows(UnsupportedImageException.class, () -> HeaderRewrite.write(file, header));
  }
}
