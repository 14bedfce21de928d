package io.qnbd.bench;

import io.qnbd.image.DiskImage;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.disk.Qcow2Image;
import io.qnbd.image.oracle.ImageMaker;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/** A mapping lookup, and requests through the engine, over a file in memory. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class EngineBenchmark {
  private static final int CLUSTER_BYTES = 65536;
  private static final int DISK_BYTES = 64 << 20;
  private static final int BLOCK_BYTES = 4096;

  private final ByteBuffer block = ByteBuffer.allocateDirect(BLOCK_BYTES);
  private DiskImage image;
  private long next;

  /** Fills the whole disk. */
  @Setup
  public void fill() throws IOException {
    image =
        Qcow2Image.open(
            ImageMaker.empty(3, CLUSTER_BYTES, 16, DISK_BYTES, 1, null, null),
            OpenOptions.DEFAULT,
            (name, _) -> {
              throw new AssertionError(name);
            });
    ByteBuffer cluster = ByteBuffer.allocateDirect(CLUSTER_BYTES);
    for (long at = 0; at < DISK_BYTES; at += CLUSTER_BYTES) {
      cluster.clear();
      while (cluster.hasRemaining()) {
        cluster.putLong(at + 1);
      }
      image.write(at, cluster.flip());
    }
    image.flush();
  }

  @TearDown
  public void close() throws IOException {
    image.close();
  }

  /** Offsets all over the disk, never two in a row in one cluster. */
  private long offset() {
    next = (next + 7919L * BLOCK_BYTES) % DISK_BYTES;
    return next;
  }

  /** What is at an offset: one look into the tables. */
  @Benchmark
  public long lookup() throws IOException {
    long[] found = new long[1];
    image.extents(
        offset(),
        BLOCK_BYTES,
        (bytes, state) -> {
          found[0] += bytes;
          return true;
        });
    return found[0];
  }

  /** A read as an event loop makes it; the copy of 4 KiB is in it. */
  @Benchmark
  public Object quickRead() throws IOException {
    return image.tryRead(offset(), block.clear());
  }

  /** The same write by an event loop. */
  @Benchmark
  public boolean quickWrite() throws IOException {
    return image.tryWrite(offset(), block.clear());
  }

  /** A read as a worker makes it. */
  @Benchmark
  public ByteBuffer read() throws IOException {
    image.read(offset(), block.clear());
    return block;
  }
}
