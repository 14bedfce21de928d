package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * How much a power cut leaks at most, in clusters, of an image without snapshots whose guest waits
 * for a commit after each request.
 *
 * <pre>
 *   pool         counted as used, referred to by nothing: a reservation is made while less than its
 *                own size is there, so at most twice REFRESERVE or twice a request; freed clusters
 *                are kept until there are max(REFRESERVE, FREED_KEPT) of them
 *   batch        removed by the one request since the last commit
 *   unwritten    decrements that are applied in memory: up to REFBATCH, and the last batch
 * </pre>
 */
final class LeakBoundTest {
  private static final int CLUSTER = 512;
  private static final int DISK = 1 << 20;
  private static final int REQUEST_CLUSTERS = 24;

  /** As the allocator has it. */
  private static final int FREED_KEPT = 1024;

  private static final int CUTS = 40;
  static final int CUTS_DEFAULT = 6 * 5 * CUTS;

  @ParameterizedTest
  @CsvSource({"0, 0", "1, 0", "8, 0", "0, 1", "8, 64", "8, 1024"})
  void aCutLeaksNoMoreThanIsReservedAndBatched(int refBatch, int refReserve) {
    Seeds.run(
        "LeakBoundTest " + refBatch + " " + refReserve,
        5,
        seed -> run(refBatch, refReserve, new SeededRandom(seed)));
  }

  private static void run(int refBatch, int refReserve, SeededRandom random) throws IOException {
    ImageShape shape = ImageShape.of(3, CLUSTER, 16, DISK).withBatches(refBatch, refReserve);
    Engine engine = new Engine(shape, random);
    CrashStorage storage = new CrashStorage(shape.make(new byte[0]));
    List<MemoryStorage> cuts = new ArrayList<>();
    // With what one request may add: its clusters, and a table for its first and its last.
    int request = REQUEST_CLUSTERS + 2;
    long pool = Math.max(FREED_KEPT, 2L * Math.max(refReserve, request));
    long bound = pool + request + refBatch + request;
    try (DiskImage image = engine.open(storage)) {
      storage.watch((_, file) -> {
        if (cuts.size() < CUTS && random.chance(10)) {
          cuts.add(file.cut(random));
        }
      });
      for (int step = 0; step < 3000 && cuts.size() < CUTS; step++) {
        int count = random.between(1, REQUEST_CLUSTERS);
        long at = (long) random.below(DISK / CLUSTER - count) * CLUSTER;
        if (random.chance(45)) {
          image.trim(at, (long) count * CLUSTER);
        } else {
          image.write(at, ByteBuffer.wrap(Pattern.fill(step, count * CLUSTER)));
        }
        image.flush();
      }
      storage.watch(null);
    }
    assertEquals(0, new RawQcow2(storage.contents()).check().leaks(), "leaks when closed");
    assertEquals(CUTS, cuts.size());
    for (MemoryStorage cut : cuts) {
      RawQcow2.Findings findings = new RawQcow2(cut).check();
      assertEquals(List.of(), findings.corruptions());
      assertTrue(
          findings.leaks() <= bound,
          () -> findings.leaks() + " clusters leaked, at most " + bound + " may");
    }
  }
}
