package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.DiskImage;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Several threads write, zero, trim and read ranges that overlap. What each sector holds, at the
 * end and in each read, is what one change left that no later change had already replaced.
 *
 * <p>A seed gives the threads their work, not their timing.
 */
final class ConcurrentModelTest {
  private static final int MIB = 1 << 20;
  private static final int THREADS = 4;
  private static final int SECTOR = GuestModel.SECTOR_BYTES;
  private static final long BEFORE_ALL = -1;

  /** A change of a range of sectors; its stamp is in each of them, 0 for zeroes. */
  private record Change(long stamp, int first, int end, long began, long ended, boolean trim) {}

  /** Sectors as somebody saw them. */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Seen(int first, long[] stamps, long began, long ended) {}

  static Stream<ImageShape> shapes() {
    ImageShape usual = ImageShape.of(3, 4096, 16, MIB);
    ImageShape subclusters = ImageShape.of(3, 16384, 16, MIB).withExtendedL2();
    return Stream.of(
        ImageShape.of(3, 512, 16, MIB / 2),
        ImageShape.of(3, 512, 16, MIB / 2).withSnapshots(1),
        usual,
        usual.withBatches(0, 0),
        usual.withBatches(2, 3).withSnapshots(2),
        usual.with(Preparation.PREALLOCATED),
        usual.with(Preparation.COMPRESSED),
        usual.with(Backing.QCOW2),
        usual.with(Place.RAW_DATA_FILE),
        usual.with(Place.DATA_FILE).with(Backing.RAW_LONGER),
        usual.with(Place.LUKS),
        ImageShape.of(2, 4096, 16, MIB).with(Backing.RAW_SHORTER),
        ImageShape.of(3, 65536, 1, 2 * MIB),
        subclusters,
        subclusters.withSnapshots(1).withBatches(2, 3).with(Backing.QCOW2));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void eachSectorIsAsOneChangeLeftIt(ImageShape shape) {
    int count = Seeds.count("qnbd.concurrent", 6);
    Seeds.run("ConcurrentModelTest " + shape, count, seed -> run(shape, seed));
  }

  private static void run(ImageShape shape, long seed) throws Exception {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    byte[] before = guest.model.latest(0, shape.diskBytes());
    AtomicLong clock = new AtomicLong();
    List<Writer> writers = new ArrayList<>();
    byte[] after = new byte[shape.diskBytes()];
    long began;
    try (DiskImage image = guest.engine.open(guest.file);
        ExecutorService threads = Executors.newFixedThreadPool(THREADS)) {
      List<CompletableFuture<Void>> running = new ArrayList<>();
      for (int number = 1; number <= THREADS; number++) {
        Writer writer = new Writer(image, clock, number, shape.diskBytes(), random.split());
        writers.add(writer);
        running.add(CompletableFuture.runAsync(writer, threads));
      }
      for (CompletableFuture<Void> writer : running) {
        writer.join();
      }
      began = clock.incrementAndGet();
      image.read(0, ByteBuffer.wrap(after));
    }
    List<Seen> seen = new ArrayList<>();
    seen.add(new Seen(0, stamps(after), began, clock.incrementAndGet()));
    writers.forEach(writer -> seen.addAll(writer.seen));
    check(before, writers, seen);

    RawQcow2 image = guest.engine.oracle(guest.file);
    assertEquals(List.of(), image.check().corruptions());
    assertEquals(0, image.check().leaks(), "leaks");
    GuestModel.assertSame(after, image.disk(guest.engine.base()), "disk when closed");
    guest.checkSnapshots(image);
  }

  private static void check(byte[] before, List<Writer> writers, List<Seen> seen) {
    long[] old = stamps(before);
    Map<Integer, List<Change>> bySector = new HashMap<>();
    for (Writer writer : writers) {
      for (Change change : writer.changes) {
        for (int sector = change.first(); sector < change.end(); sector++) {
          bySector.computeIfAbsent(sector, _ -> new ArrayList<>()).add(change);
        }
      }
    }
    for (Seen read : seen) {
      for (int i = 0; i < read.stamps().length; i++) {
        int sector = read.first() + i;
        List<Change> changes = bySector.getOrDefault(sector, List.of());
        if (!possible(read, read.stamps()[i], old[sector], changes)) {
          throw new AssertionError(
              "sector %d reads %x in [%d, %d]; before all %x, changes %s"
                  .formatted(
                      sector, read.stamps()[i], read.began(), read.ended(), old[sector], changes));
        }
      }
    }
  }

  /** Whether a read may find the stamp: somebody left it, and nothing surely came in between. */
  private static boolean possible(Seen read, long stamp, long old, List<Change> changes) {
    if (stamp == old && !replaced(BEFORE_ALL, read, changes)) {
      return true;
    }
    for (Change change : changes) {
      if (change.stamp() == stamp
          && change.began() < read.ended()
          && !replaced(change.ended(), read, changes)) {
        return true;
      }
    }
    return false;
  }

  /** A trim that left the sector as it was replaces nothing, so none is held against a read. */
  private static boolean replaced(long since, Seen read, List<Change> changes) {
    for (Change change : changes) {
      if (!change.trim() && change.began() > since && change.ended() < read.began()) {
        return true;
      }
    }
    return false;
  }

  /** The first eight bytes of each sector; a torn sector shows as a stamp that nobody wrote. */
  private static long[] stamps(byte[] disk) {
    ByteBuffer bytes = ByteBuffer.wrap(disk);
    long[] stamps = new long[disk.length / SECTOR];
    for (int sector = 0; sector < stamps.length; sector++) {
      long first = bytes.getLong(sector * SECTOR);
      long last = bytes.getLong((sector + 1) * SECTOR - 8);
      stamps[sector] = first == last ? first : ~first;
    }
    return stamps;
  }

  /** One guest thread and what it did and saw. */
  private static final class Writer implements Runnable {
    private final DiskImage image;
    private final AtomicLong clock;
    private final int number;
    private final int sectors;
    private final SeededRandom random;
    private final List<Change> changes = new ArrayList<>();
    private final List<Seen> seen = new ArrayList<>();

    Writer(DiskImage image, AtomicLong clock, int number, int diskBytes, SeededRandom random) {
      this.image = image;
      this.clock = clock;
      this.number = number;
      this.sectors = diskBytes / SECTOR;
      this.random = random;
    }

    @Override
    public void run() {
      try {
        for (int step = 1; step <= 150; step++) {
          step((long) number << 32 | step);
        }
      } catch (IOException e) {
        throw new AssertionError("writer " + number, e);
      }
    }

    private void step(long stamp) throws IOException {
      if (random.chance(15)) {
        writeCompressed(stamp);
        return;
      }
      int count = (int) random.skewed(1, 128);
      int first = random.below(Math.min(sectors, 512) - count);
      int end = first + count;
      long at = (long) first * SECTOR;
      long bytes = (long) count * SECTOR;
      long began = clock.incrementAndGet();
      switch (random.below(11)) {
        case 0 -> {
          image.trim(at, bytes);
          changes.add(new Change(0, first, end, began, clock.incrementAndGet(), true));
        }
        case 1, 2 -> {
          ZeroMode mode = random.chance(50) ? ZeroMode.MAY_UNMAP : ZeroMode.KEEP_ALLOCATED;
          if (random.chance(50) || !image.tryFastZeroes(at, bytes, mode)) {
            image.writeZeroes(at, bytes, mode);
          }
          changes.add(new Change(0, first, end, began, clock.incrementAndGet(), false));
        }
        case 3, 4 -> {
          ByteBuffer target = ByteBuffer.allocate((int) bytes);
          if (random.chance(30)) {
            image.read(at, target);
          } else if (random.chance(50)) {
            Quick.read(image, at, target);
          } else {
            SparseRead.of(image, at, target);
          }
          seen.add(new Seen(first, stamps(target.array()), began, clock.incrementAndGet()));
        }
        case 6 -> seeExtents(at, bytes, began);
        case 5 -> image.flush();
        default -> {
          if (random.chance(50)) {
            Quick.write(image, at, stamped(stamp, (int) bytes));
          } else {
            image.write(at, stamped(stamp, (int) bytes));
          }
          changes.add(new Change(stamp, first, end, began, clock.incrementAndGet(), false));
        }
      }
    }

    private void writeCompressed(long stamp) throws IOException {
      int cluster = image.clusterBytes();
      int first = random.below(512) * SECTOR / cluster * (cluster / SECTOR);
      long began = clock.incrementAndGet();
      image.writeCompressed((long) first * SECTOR, stamped(stamp, cluster));
      int end = first + cluster / SECTOR;
      changes.add(new Change(stamp, first, end, began, clock.incrementAndGet(), false));
    }

    /** What is said to be zeroes counts as read. */
    private void seeExtents(long offset, long count, long began) throws IOException {
      List<Integer> zeroes = new ArrayList<>();
      AtomicLong next = new AtomicLong(offset / SECTOR);
      image.extents(
          offset,
          count,
          (bytes, state) -> {
            int first = (int) next.getAndAdd(bytes / SECTOR);
            for (int sector = first; state.zero() && sector < next.get(); sector++) {
              zeroes.add(sector);
            }
            return true;
          });
      assertEquals((offset + count) / SECTOR, next.get(), "end of the extents");
      long ended = clock.incrementAndGet();
      for (int sector : zeroes) {
        seen.add(new Seen(sector, new long[1], began, ended));
      }
    }

    private static ByteBuffer stamped(long stamp, int bytes) {
      ByteBuffer data = ByteBuffer.allocate(bytes);
      while (data.hasRemaining()) {
        data.putLong(stamp);
      }
      return data.flip();
    }
  }
}
