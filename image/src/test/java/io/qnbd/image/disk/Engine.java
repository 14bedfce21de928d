package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/** Opens test images with the engine: the one place that knows how. */
final class Engine {
  private final ImageShape shape;
  private final byte @Nullable [] base;
  private final @Nullable MemoryStorage baseFile;

  /** The backing file's contents, if there is one, follow from {@code random}. */
  Engine(ImageShape shape, SeededRandom random) throws IOException {
    this.shape = shape;
    if (shape.backing() == ImageShape.Backing.NONE) {
      base = null;
      baseFile = null;
      return;
    }
    byte[] bytes = new byte[shape.backingBytes()];
    Pattern.scatter(random, bytes);
    base = bytes;
    baseFile = shape.backing() == ImageShape.Backing.QCOW2 ? qcow2Of(bytes) : null;
  }

  /** What the disk reads as where the image has nothing of its own; null for zeroes. */
  byte @Nullable [] base() {
    return base;
  }

  DiskImage open(Storage storage) throws IOException {
    return Qcow2Image.open(storage, shape.options(), this::openBase);
  }

  private DiskImage openBase(String name, ImageFormat format) throws IOException {
    if (base == null) {
      throw new AssertionError("the image names a backing file: " + name + ", " + format);
    }
    if (baseFile == null) {
      return new BytesImage(base);
    }
    return Qcow2Image.open(
        baseFile.copy(),
        shape.options().withReadOnly(true),
        (inner, _) -> {
          throw new AssertionError("the backing file names one: " + inner);
        });
  }

  private static MemoryStorage qcow2Of(byte[] bytes) throws IOException {
    MemoryStorage file = ImageMaker.empty(3, 4096, 16, bytes.length, 1, null, null);
    try (DiskImage image =
        Qcow2Image.open(
            file,
            ImageShape.of(3, 4096, 16, bytes.length).options(),
            (name, _) -> {
              throw new AssertionError("no backing file was named, but " + name);
            })) {
      image.write(0, ByteBuffer.wrap(bytes));
    }
    return file;
  }
}
