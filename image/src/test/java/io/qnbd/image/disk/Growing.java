package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.DiskImage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.util.Arrays;

/**
 * A guest whose disk grows in steps, up to a size that its model describes from the beginning: what
 * is not there yet is zeroes.
 */
final class Growing {
  private static final int SECTOR_BYTES = 512;

  final Guest guest;
  final GuestModel model;
  final int bytesMax;

  private final SeededRandom random;

  /** A guest with a past, snapshots and all, whose disk may grow to {@code times} its size. */
  Growing(ImageShape shape, int times, SeededRandom random) throws IOException {
    this.random = random;
    this.bytesMax = shape.diskBytes() * times;
    this.guest = Guest.withPast(shape, random);
    byte[] disk = guest.model.latest(0, shape.diskBytes());
    this.model = new GuestModel(Arrays.copyOf(disk, bytesMax));
  }

  /** A size from the present one on: often a little more, at times within the cluster. */
  long nextBytes(DiskImage image) {
    long now = image.virtualBytes();
    long most = bytesMax - now;
    long more = random.chance(30) ? Math.min(most, image.preferredBytes()) : most;
    return now + random.skewed(0, more) / SECTOR_BYTES * SECTOR_BYTES;
  }

  /** Grows the disk; what is new must read as zeroes at once. */
  void grow(DiskImage image, Workload workload, long bytes) throws IOException {
    int before = (int) image.virtualBytes();
    image.resize(bytes);
    assertEquals(bytes, image.virtualBytes());
    workload.checkRead(before, (int) bytes - before);
  }
}
