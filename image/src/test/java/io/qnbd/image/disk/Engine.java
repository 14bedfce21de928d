package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.crypt.SectorCipher;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Opens test images with the engine: the one place that knows how. */
final class Engine {
  private final ImageShape shape;
  private final byte @Nullable [] base;
  private final @Nullable MemoryStorage baseFile;

  /** What the data file holds at rest, where the shape has one. */
  private final @Nullable MemoryStorage data;

  private @Nullable CrashStorage crashData;

  /** The backing file's contents, if there is one, follow from {@code random}. */
  Engine(ImageShape shape, SeededRandom random) throws IOException {
    this.shape = shape;
    this.data = shape.hasDataFile() ? new MemoryStorage("test.data") : null;
    if (data != null && shape.place() == ImageShape.Place.RAW_DATA_FILE) {
      data.setLength(shape.diskBytes());
    }
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

  private Engine(Engine other, MemoryStorage data) {
    this.shape = other.shape;
    this.base = other.base;
    this.baseFile = other.baseFile;
    this.data = data;
  }

  /** The same with this in its data file; null is for images without one. */
  Engine with(@Nullable MemoryStorage contents) {
    return contents == null ? this : new Engine(this, contents);
  }

  /** What may be found in the data file if the power went now, or null. */
  @Nullable MemoryStorage cutData(SeededRandom random) {
    return crashData == null ? null : crashData.cut(random);
  }

  /** What the data file holds while the image may be open; null without one. */
  @Nullable MemoryStorage dataNow() {
    return crashData == null ? data : crashData.contents();
  }

  /** The data file if it is the disk's raw image, else null. */
  @Nullable MemoryStorage rawImage() {
    return shape.place() == ImageShape.Place.RAW_DATA_FILE ? dataNow() : null;
  }

  /** An independent view of the image. */
  RawQcow2 oracle(MemoryStorage file) throws IOException {
    MemoryStorage there = dataNow();
    if (there != null) {
      return new RawQcow2(file, there::bytes);
    }
    if (shape.place() != ImageShape.Place.LUKS) {
      return new RawQcow2(file);
    }
    Header header = ImageFile.of(file).readHeader();
    SectorCipher.Maker ciphers = Encryption.open(file, header, ImageMaker.PASSPHRASE);
    SectorCipher cipher = Objects.requireNonNull(ciphers).make();
    return new RawQcow2(
        file,
        (at, count) -> {
          byte[] bytes = file.bytes(at, count);
          cipher.decrypt(at / SectorCipher.SECTOR_BYTES, bytes, count / SectorCipher.SECTOR_BYTES);
          return bytes;
        });
  }

  /** What the disk reads as where the image has nothing of its own; null for zeroes. */
  byte @Nullable [] base() {
    return base;
  }

  DiskImage open(Storage storage) throws IOException {
    if (data != null && storage instanceof CrashStorage crash) {
      crashData = crash.beside(data);
    }
    return Qcow2Image.open(storage, shape.options(), new Files());
  }

  /** The files beside the image. */
  private final class Files implements BackingOpener {
    @Override
    public DiskImage open(String name, ImageFormat format) throws IOException {
      return openBase(name, format);
    }

    @Override
    public Storage openData(@Nullable String name) {
      return Objects.requireNonNull(crashData == null ? data : crashData);
    }
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
        shape.options().withReadOnly(true).withPassphrase(null),
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
