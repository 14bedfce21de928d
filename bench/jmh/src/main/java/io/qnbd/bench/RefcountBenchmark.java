package io.qnbd.bench;

import io.qnbd.image.format.Geometry;
import io.qnbd.image.format.RefcountEntries;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.metadata.Barrier;
import io.qnbd.image.refcount.Allocator;
import io.qnbd.image.refcount.HostRun;
import io.qnbd.image.refcount.RefcountBlocks;
import io.qnbd.image.refcount.ReleaseBatch;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

/** Clusters that go round: allocated, released into a batch, applied, available again. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class RefcountBenchmark {
  /** The default length of the batch. */
  private static final int BATCH = 1022;

  private static final int CLUSTER_BITS = 16;
  private static final int CLUSTER_BYTES = 1 << CLUSTER_BITS;
  private static final int REFCOUNT_ORDER = 4;

  private Allocator allocator;

  /** Header, refcount table and one block, which counts them. */
  @Setup
  public void make() throws IOException {
    MemoryStorage file = new MemoryStorage();
    byte[] block = new byte[CLUSTER_BYTES];
    for (int cluster = 0; cluster < 3; cluster++) {
      RefcountEntries.set(block, REFCOUNT_ORDER, cluster, 1);
    }
    long[] table = new long[CLUSTER_BYTES / Long.BYTES];
    table[0] = 2L * CLUSTER_BYTES;
    file.setLength(3L * CLUSTER_BYTES);
    file.write(CLUSTER_BYTES, ByteBuffer.allocate(CLUSTER_BYTES).putLong(table[0]).clear());
    file.write(table[0], ByteBuffer.wrap(block));
    Geometry geometry = new Geometry(CLUSTER_BITS, REFCOUNT_ORDER);
    RefcountBlocks blocks = new RefcountBlocks(file, geometry, CLUSTER_BYTES, table);
    allocator =
        new Allocator(
            file,
            geometry,
            blocks,
            (offset, clusters) -> {
              throw new AssertionError("the table does not grow");
            },
            new Barrier(),
            2 * BATCH,
            false);
  }

  /** Time for each cluster. */
  @Benchmark
  @OperationsPerInvocation(BATCH)
  public int allocateReleaseApply() throws IOException {
    for (int left = BATCH; left > 0; ) {
      HostRun run = allocator.allocate(1);
      for (long cluster = run.first(); cluster < run.end(); cluster++) {
        allocator.release(cluster);
        left--;
      }
    }
    ReleaseBatch batch = allocator.takeReleased();
    List<HostRun> unused = allocator.apply(batch);
    for (HostRun run : unused) {
      allocator.makeAvailable(run, true);
    }
    return unused.size();
  }
}
