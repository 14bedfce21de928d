package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.fail;

import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/**
 * Images that were damaged at random, and a guest that uses them: each is refused with a sentence,
 * or served with an error where it is damaged. No other exception, no hang; nothing that could be
 * read is lost, and what is sound stays sound.
 *
 * <p>{@code -Dqnbd.mutants=N} runs more of them, {@code -Dqnbd.base} and {@code -Dqnbd.seed} choose
 * which: see {@link Seeds}.
 */
final class MutationTest {
  private static final int MUTANTS_DEFAULT = 20_000;
  private static final int MUTANTS_PER_SEED = 20;
  private static final int LARGE_DEFAULT = 100;

  /** Generous: the machine may be busy with other things. */
  private static final Duration MUTANT_MAX = Duration.ofSeconds(30);

  private static final long LIVE_BYTES_MAX = 256L << 20;

  /** Looking for what is garbage takes a moment. */
  private static final Duration MEMORY_PERIOD = Duration.ofSeconds(2);

  private final AtomicReference<String> current = new AtomicReference<>("");
  private volatile long startedNanos;

  @Test
  void mutantsDoNoHarm() throws Exception {
    List<Specimen> specimens = Specimen.all();
    int runs = Seeds.count("qnbd.mutants", MUTANTS_DEFAULT) / MUTANTS_PER_SEED;
    watched(() ->
        Seeds.run(
            "MutationTest",
            runs,
            seed -> {
              SeededRandom random = new SeededRandom(seed);
              for (int i = 0; i < MUTANTS_PER_SEED; i++) {
                tryOne(random.split(), random.pick(specimens));
              }
            }));
  }

  @Test
  void mutantsWithTheLargestClustersDoNoHarm() throws Exception {
    Specimen large = Specimen.large();
    int runs = Seeds.count("qnbd.mutants.large", LARGE_DEFAULT) / MUTANTS_PER_SEED;
    watched(() ->
        Seeds.run(
            "MutationTest, large",
            runs,
            seed -> {
              SeededRandom random = new SeededRandom(seed);
              for (int i = 0; i < MUTANTS_PER_SEED; i++) {
                tryOne(random.split(), large);
              }
            }));
  }

  private interface Work {
    void run() throws Exception;
  }

  /** Runs the work on a thread of its own and fails when a mutant takes too long. */
  private void watched(Work work) throws Exception {
    AtomicReference<@Nullable Throwable> thrown = new AtomicReference<>();
    startedNanos = System.nanoTime();
    Thread worker =
        Thread.ofPlatform()
            .daemon()
            .name("mutants")
            .start(() -> {
              try {
                work.run();
              } catch (Throwable e) {
                thrown.set(e);
              }
            });
    long heapBefore = usedBytes();
    for (long looked = System.nanoTime(); !worker.join(Duration.ofMillis(200)); ) {
      if (System.nanoTime() - looked > MEMORY_PERIOD.toNanos()) {
        requireLittle(heapBefore);
        looked = System.nanoTime();
      }
      if (System.nanoTime() - startedNanos > MUTANT_MAX.toNanos()) {
        StringBuilder trace = new StringBuilder();
        for (StackTraceElement element : worker.getStackTrace()) {
          trace.append("\n  at ").append(element);
        }
        fail("takes longer than " + MUTANT_MAX + ": " + current.get() + trace);
      }
    }
    Throwable failure = thrown.get();
    if (failure != null) {
      throw new AssertionError(failure.getMessage(), failure);
    }
  }

  private void requireLittle(long before) {
    if (usedBytes() - before <= LIVE_BYTES_MAX) {
      return;
    }
    System.gc();
    long live = usedBytes() - before;
    if (live > LIVE_BYTES_MAX) {
      fail("holds " + live + " bytes of memory: " + current.get());
    }
  }

  private static long usedBytes() {
    return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
  }

  private void tryOne(SeededRandom random, Specimen specimen) throws Exception {
    Mutator mutator = new Mutator(random, specimen);
    MemoryStorage mutant = mutator.mutant();
    current.set(mutator.toString());
    startedNanos = System.nanoTime();
    try {
      new Trial(random, mutant, specimen.data().copy(), specimen.base()).run();
    } catch (Throwable e) {
      throw new AssertionError(mutator + ": " + e, e);
    }
  }
}
