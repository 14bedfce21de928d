package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.NoSpaceException;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** A host that is full: writes are refused, nothing is lost, and with new room all goes on. */
final class NoSpaceTest {
  private static final int MIB = 1 << 20;

  static Stream<ImageShape> shapes() {
    ImageShape usual = ImageShape.of(3, 4096, 16, MIB);
    return Stream.of(
        ImageShape.of(3, 512, 16, MIB / 2),
        ImageShape.of(3, 512, 64, MIB).withBatches(20, 16),
        usual,
        usual.withSnapshots(1),
        usual.withSnapshots(1).withBatches(2, 0),
        usual.with(Backing.RAW_LONGER),
        ImageShape.of(2, 65536, 16, 4 * MIB));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void whatWasWrittenStaysAndWritesWorkAgainWithMoreRoom(ImageShape shape) {
    int count = Seeds.count("qnbd.noSpace", 15);
    Seeds.run("NoSpaceTest " + shape, count, seed -> run(shape, seed));
  }

  private static void run(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    try (DiskImage image = guest.engine.open(guest.file)) {
      Workload.Mix mix = new Workload.Mix(5, 10, 5, 10, shape.diskBytes() / 8);
      Workload workload = new Workload(random, image, guest.model, mix);
      for (int shortage = 0; shortage < 3; shortage++) {
        guest.file.limitCapacity(guest.file.allocatedBytes() + random.skewed(0, 128 * 1024));
        int refused = 0;
        for (int step = 0; step < 40; step++) {
          try {
            workload.step();
          } catch (NoSpaceException e) {
            refused++;
          }
          if (refused == 5) {
            break;
          }
        }
        workload.checkAll();
        guest.file.limitCapacity(Long.MAX_VALUE);
        workload.run(5);
        workload.flush();
        workload.checkAll();
      }
    }
    guest.check();
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void aFullHostRefusesWrites(ImageShape shape) throws IOException {
    Engine engine = new Engine(shape, new SeededRandom(1));
    Guest guest = new Guest(shape, new SeededRandom(1));
    try (DiskImage image = engine.open(guest.file)) {
      guest.file.limitCapacity(guest.file.allocatedBytes() + shape.diskBytes() / 4);
      Workload workload =
          new Workload(
              new SeededRandom(2), image, guest.model, new Workload.Mix(0, 0, 0, 0, 65536));
      boolean refused = false;
      for (int at = 0; at < shape.diskBytes() && !refused; at += 65536) {
        try {
          workload.write(at, Pattern.fill(at, 65536));
        } catch (NoSpaceException e) {
          refused = true;
        }
      }
      assertTrue(refused);
      workload.checkAll();
      guest.file.limitCapacity(Long.MAX_VALUE);
      for (int at = 0; at < shape.diskBytes(); at += 65536) {
        workload.write(at, Pattern.fill(at + 1, 65536));
      }
      workload.checkAll();
    }
    guest.check();
  }

  /** The L1 table of a new image may be a hole, which a commit is the first to write to. */
  @Test
  void aFlushThatFindsTheHostFullSaysSoAndWorksLater() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, MIB);
    Guest guest = new Guest(shape, new SeededRandom(1));
    try (DiskImage image = guest.engine.open(guest.file)) {
      Workload workload =
          new Workload(
              new SeededRandom(2), image, guest.model, new Workload.Mix(0, 0, 0, 0, 65536));
      workload.write(0, Pattern.fill(1, 65536));
      guest.file.limitCapacity(guest.file.allocatedBytes());
      assertThrows(NoSpaceException.class, image::flush);
      workload.checkAll();
      guest.file.limitCapacity(Long.MAX_VALUE);
      image.flush();
      workload.checkAll();
    }
    guest.check();
  }
}
