package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.io.PowerCut;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A guest that does random things to a disk and knows what it must find there. What it does follows
 * from its random numbers alone.
 */
final class Workload {
  /**
   * How often it does what, in percent; the rest are writes.
   *
   * @param bytesMax of one request
   * @param compressed how many of the writes are of one compressed cluster
   */
  record Mix(int reads, int zeroes, int trims, int flushes, int bytesMax, int compressed) {
    Mix(int reads, int zeroes, int trims, int flushes, int bytesMax) {
      this(reads, zeroes, trims, flushes, bytesMax, 0);
    }

    Mix withCompressed(int percent) {
      return new Mix(reads, zeroes, trims, flushes, bytesMax, percent);
    }

    static Mix random(SeededRandom random, int bytesMax) {
      return new Mix(
          10,
          random.pick(List.of(0, 10, 25, 60)),
          random.pick(List.of(0, 10, 25)),
          random.pick(List.of(2, 10, 30, 45)),
          Math.max(512, bytesMax / random.pick(List.of(1, 8, 64))));
    }
  }

  private final SeededRandom random;
  private final DiskImage image;
  private final GuestModel model;
  private final Mix mix;
  private final int hotAt;
  private final int hotBytes;

  Workload(SeededRandom random, DiskImage image, GuestModel model, Mix mix) {
    this.random = random;
    this.image = image;
    this.model = model;
    this.mix = mix;
    hotBytes = Math.max(1, bytes() / random.pick(List.of(8, 40)));
    hotAt = random.below(bytes() - hotBytes + 1);
  }

  /** A model may describe more than there is as yet: the image grows into it. */
  private int bytes() {
    return (int) Math.min(model.bytes(), image.virtualBytes());
  }

  void run(int steps) throws IOException {
    for (int step = 0; step < steps; step++) {
      step();
    }
  }

  /**
   * Does one thing. An exception of the image comes through; the range that was asked for is
   * settled by reading it back first.
   */
  void step() throws IOException {
    int kind = random.below(100);
    if ((kind -= mix.flushes()) < 0) {
      flush();
      return;
    }
    int count = (int) random.skewed(1, Math.min(mix.bytesMax(), bytes()));
    int at = place(count);
    if (random.chance(70)) {
      int unit = random.pick(List.of(512, 4096, image.preferredBytes()));
      at = at / unit * unit;
      count = Math.min((count + unit - 1) / unit * unit, bytes() - at);
    }
    if ((kind -= mix.reads()) < 0) {
      checkRead(at, count);
    } else if ((kind -= mix.trims()) < 0) {
      trim(at, count);
    } else if ((kind -= mix.zeroes()) < 0) {
      zero(at, count, random.chance(50) ? ZeroMode.MAY_UNMAP : ZeroMode.KEEP_ALLOCATED);
    } else if (random.chance(mix.compressed())) {
      writeCompressed(at);
    } else {
      write(at, Pattern.fill(random.nextLong(), count));
    }
  }

  private int place(int count) {
    int room = bytes() - count;
    int at = random.chance(50) ? hotAt + random.below(hotBytes) : random.below(room + 1);
    return Math.min(at, room);
  }

  void write(int at, byte[] data) throws IOException {
    model.begin(at, data);
    try {
      if (random.chance(50)) {
        Quick.write(image, at, source(data));
      } else {
        image.write(at, source(data));
      }
    } catch (IOException e) {
      settleFailed(at, data.length, e);
      throw e;
    }
    model.end(at, data.length);
  }

  /** One cluster, compressed: at times one that does not shrink, at times one of zeroes. */
  private void writeCompressed(int anywhere) throws IOException {
    int cluster = image.clusterBytes();
    int at = anywhere / cluster * cluster;
    byte[] data = new byte[Math.min(cluster, bytes() - at)];
    switch (random.below(8)) {
      case 0 -> data = random.bytes(data.length);
      case 1 -> {}
      case 2 -> {
        byte[] half = random.bytes(data.length / 2);
        System.arraycopy(half, 0, data, 0, half.length);
      }
      default -> Pattern.scatter(random, data);
    }
    model.begin(at, data);
    try {
      image.writeCompressed(at, source(data));
    } catch (IOException e) {
      settleFailed(at, data.length, e);
      throw e;
    }
    model.end(at, data.length);
  }

  void zero(int at, int count, ZeroMode mode) throws IOException {
    boolean fastOnly = random.chance(40);
    byte[] before = model.latest(at, count);
    model.begin(at, new byte[count]);
    try {
      if (fastOnly && !image.tryFastZeroes(at, count, mode)) {
        GuestModel.assertSame(before, read(at, count), "what was not zeroed from " + at + " on");
        settle(at, count, false);
        return;
      }
      if (!fastOnly) {
        image.writeZeroes(at, count, mode);
      }
    } catch (IOException e) {
      settleFailed(at, count, e);
      throw e;
    }
    model.end(at, count);
  }

  void trim(int at, int count) throws IOException {
    model.beginTrim(at, count);
    try {
      image.trim(at, count);
    } catch (IOException e) {
      settleFailed(at, count, e);
      throw e;
    }
    settle(at, count, false);
  }

  /** A flush that is waited for, or one that is asked for while the guest goes on. */
  void flush() throws IOException {
    long[] mark = model.mark();
    if (random.chance(30)) {
      image
          .commit()
          .whenComplete((_, failure) -> {
            if (failure == null) {
              model.acknowledged(mark);
            }
          });
      return;
    }
    image.flush();
    model.acknowledged(mark);
  }

  void checkAll() throws IOException {
    for (int at = 0; at < bytes(); at += 1 << 20) {
      checkRead(at, Math.min(1 << 20, bytes() - at));
    }
  }

  void checkRead(int at, int count) throws IOException {
    byte[] expected = model.latest(at, count);
    GuestModel.assertSame(expected, read(at, count), "read from " + at + " on");
  }

  /** After a power cut there is nobody left to look: whatever was in flight stays possible. */
  private void settleFailed(int at, int count, IOException failure) throws IOException {
    if (!(failure instanceof PowerCut) && !(failure.getCause() instanceof PowerCut)) {
      settle(at, count, true);
    }
  }

  /** How much of a change took place is found out by looking. */
  private void settle(int at, int count, boolean failed) throws IOException {
    int from = at / GuestModel.SECTOR_BYTES * GuestModel.SECTOR_BYTES;
    int sectors = (at + count - from + GuestModel.SECTOR_BYTES - 1) / GuestModel.SECTOR_BYTES;
    int to = Math.min(bytes(), from + sectors * GuestModel.SECTOR_BYTES);
    byte[] actual;
    try {
      actual = read(from, to - from);
    } catch (IOException e) {
      actual = read(from, to - from); // a single fault is over now
    }
    @Nullable String wrong = model.settle(at, count, actual, failed);
    if (wrong != null) {
      throw new AssertionError("after a change at " + at + " of " + count + " bytes: " + wrong);
    }
  }

  private byte[] read(int at, int count) throws IOException {
    ByteBuffer target =
        random.chance(50) ? ByteBuffer.allocate(count) : ByteBuffer.allocateDirect(count);
    if (random.chance(50)) {
      return SparseRead.of(image, at, target);
    }
    if (random.chance(50)) {
      Quick.read(image, at, target);
    } else {
      image.read(at, target);
    }
    byte[] bytes = new byte[count];
    target.flip().get(bytes);
    return bytes;
  }

  private ByteBuffer source(byte[] data) {
    if (random.chance(50)) {
      return ByteBuffer.wrap(data);
    }
    return ByteBuffer.allocateDirect(data.length).put(data).flip();
  }
}
