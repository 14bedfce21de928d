package io.qnbd.it;

import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;

/**
 * A part of the disk that all connections write at once, whole sectors only.
 *
 * <p>Each write stamps its sectors with its number and the sector's. A read must find each sector
 * whole, stamped for its own place, and not stale: a write is stale when another write of the
 * sector began after it had been acknowledged and was itself acknowledged before the read began.
 * Time is a counter that each beginning and each acknowledgement moves on.
 *
 * <p>Thread-safe.
 */
final class SharedArea {
  static final int SECTOR_BYTES = 512;

  private final long from;
  private final int sectors;
  private final AtomicLong clock = new AtomicLong(1);
  private final AtomicInteger writes = new AtomicInteger(1);

  /** When write n began and was acknowledged; 0 while it has not. Write 0 is the zeroes before. */
  private final AtomicLongArray began;

  private final AtomicLongArray acknowledged;

  /** For each sector the latest beginning among its acknowledged writes. */
  private final AtomicLongArray latest;

  SharedArea(long from, int sectors, int writesMax) {
    this.from = from;
    this.sectors = sectors;
    this.began = new AtomicLongArray(writesMax + 1);
    this.acknowledged = new AtomicLongArray(writesMax + 1);
    this.latest = new AtomicLongArray(sectors);
  }

  long from() {
    return from;
  }

  int sectors() {
    return sectors;
  }

  /** Takes the number of a write that is about to be sent. */
  int begin() {
    int number = writes.getAndIncrement();
    began.set(number, clock.getAndIncrement());
    return number;
  }

  /** The bytes of a write. */
  ByteBuffer stamped(int number, int firstSector, int count) {
    ByteBuffer bytes = ByteBuffer.allocate(count * SECTOR_BYTES);
    for (int sector = firstSector; sector < firstSector + count; sector++) {
      for (int word = 0; word < SECTOR_BYTES / 8; word++) {
        bytes.putInt(number).putInt(sector);
      }
    }
    return bytes.flip();
  }

  void acknowledge(int number, int firstSector, int count) {
    acknowledged.set(number, clock.getAndIncrement());
    for (int sector = firstSector; sector < firstSector + count; sector++) {
      latest.accumulateAndGet(sector, began.get(number), Math::max);
    }
  }

  /** What each sector's writes had reached when a read began; given to {@link #verify}. */
  long[] floors(int firstSector, int count) {
    long[] floors = new long[count];
    for (int index = 0; index < count; index++) {
      floors[index] = latest.get(firstSector + index);
    }
    return floors;
  }

  /** Fails unless every sector holds a write that a read could find. */
  void verify(ByteBuffer bytes, int firstSector, long[] floors) {
    for (int index = 0; index < floors.length; index++) {
      int sector = firstSector + index;
      int number = bytes.getInt(index * SECTOR_BYTES);
      int place = number == 0 ? 0 : sector;
      for (int word = 0; word < SECTOR_BYTES / 8; word++) {
        int at = index * SECTOR_BYTES + word * 8;
        if (bytes.getInt(at) != number || bytes.getInt(at + 4) != place) {
          throw new AssertionError(
              "shared sector %d is torn or misplaced at word %d: write %d, then %d for sector %d"
                  .formatted(sector, word, number, bytes.getInt(at), bytes.getInt(at + 4)));
        }
      }
      if (number < 0 || number >= writes.get()) {
        throw new AssertionError("shared sector " + sector + " holds no write of ours: " + number);
      }
      long end = number == 0 ? 1 : acknowledged.get(number);
      if (end != 0 && end < floors[index]) {
        throw new AssertionError(
            "shared sector %d holds the stale write %d, acknowledged at %d; another began at %d"
                .formatted(sector, number, end, floors[index]));
      }
    }
  }
}
