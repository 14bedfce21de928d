package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Host clusters that hold several compressed clusters, so that their counts are above one. */
final class SharedClusterTest {
  private static final int CLUSTER = 4096;
  private static final int COMPRESSED = 128;
  private static final int DISK = 4 * COMPRESSED * CLUSTER;

  /** Zeroes, which compress so well that all of them share one or two host clusters. */
  private static MemoryStorage image(int refcountBits) throws IOException {
    MemoryStorage file = ImageMaker.empty(3, CLUSTER, refcountBits, DISK, 1, null, null);
    ImageMaker.compress(file, new byte[COMPRESSED * CLUSTER]);
    assertTrue(new RawQcow2(file).check().clean());
    return file;
  }

  private static ImageShape shape(int refcountBits) {
    return ImageShape.of(3, CLUSTER, refcountBits, DISK);
  }

  /**
   * All references to a shared cluster are dropped in one batch, and it is handed out again: the
   * count that is durable with the new reference must be one.
   */
  @ParameterizedTest
  @ValueSource(ints = {0, 4, 1022})
  void aSharedClusterIsCountedOnceWhenItIsUsedAgain(int refBatch) throws IOException {
    ImageShape shape = shape(16).withBatches(refBatch, 0);
    CrashStorage storage = new CrashStorage(image(16));
    SeededRandom random = new SeededRandom(1);
    try (DiskImage image = new Engine(shape, random).open(storage)) {
      image.write(0, ByteBuffer.wrap(Pattern.fill(1, COMPRESSED * CLUSTER)));
      image.flush();
      image.write(COMPRESSED * CLUSTER, ByteBuffer.wrap(Pattern.fill(2, CLUSTER)));
      image.flush();
      RawQcow2 found = new RawQcow2(storage.cut(random));
      assertEquals(List.of(), found.check().corruptions());
    }
    assertTrue(new RawQcow2(storage.contents()).check().clean());
  }

  /** The same where the references are dropped in several batches, the last of them alone. */
  @Test
  void aSharedClusterIsCountedOnceHoweverItsCountFell() throws IOException {
    CrashStorage storage = new CrashStorage(image(16));
    SeededRandom random = new SeededRandom(1);
    long elsewhere = 2L * COMPRESSED * CLUSTER;
    try (DiskImage image = new Engine(shape(16), random).open(storage)) {
      image.write(elsewhere, ByteBuffer.wrap(Pattern.fill(1, CLUSTER)));
      image.flush();
      image.trim(CLUSTER, (COMPRESSED - 2L) * CLUSTER);
      image.flush();
      image.trim(0, CLUSTER);
      image.flush();
      image.trim((COMPRESSED - 1L) * CLUSTER, CLUSTER);
      image.flush();
      for (int i = 1; i <= 4; i++) {
        image.write(elsewhere + (long) i * CLUSTER, ByteBuffer.wrap(Pattern.fill(i, CLUSTER)));
        image.flush();
        RawQcow2 found = new RawQcow2(storage.cut(random));
        assertEquals(List.of(), found.check().corruptions());
      }
    }
    assertTrue(new RawQcow2(storage.contents()).check().clean());
  }

  /** A snapshot doubles each count; where one would not fit, there is no snapshot at all. */
  @Test
  void aSnapshotThatWouldOverflowACountIsRefused() throws IOException {
    for (int bits : new int[] {8, 16}) {
      MemoryStorage file = image(bits);
      try (DiskImage image = new Engine(shape(bits), new SeededRandom(1)).open(file)) {
        int taken = 0;
        try {
          for (; taken < 4; taken++) {
            image.snapshots().create("s" + taken);
          }
        } catch (UnsupportedImageException e) {
          assertEquals(8, bits);
        }
        image.write(0, ByteBuffer.wrap(Pattern.fill(1, CLUSTER)));
      }
      assertTrue(new RawQcow2(file).check().clean(), new RawQcow2(file).check()::toString);
    }
  }
}
