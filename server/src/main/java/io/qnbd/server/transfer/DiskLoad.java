package io.qnbd.server.transfer;

import io.qnbd.image.DiskImage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;

/**
 * Equal requests to a disk, many at a time, to see how fast it is.
 *
 * <p>Request {@code n} begins at {@code offset + n * step}, going around at the disk's end, or at a
 * multiple of {@code step} behind {@code offset} that chance picks.
 */
public final class DiskLoad {
  private static final String GENERATOR = "L64X128MixRandom";

  private final DiskImage disk;
  private final Plan plan;
  private final long places;
  private final AtomicLong begun = new AtomicLong();
  private final AtomicLong done = new AtomicLong();

  /**
   * What is asked of the disk.
   *
   * @param count requests in all, 1 or more
   * @param nanosMax after which no further one begins
   * @param depth requests at a time, 1 or more
   * @param bytes of each request, 1 or more
   * @param offset of the first request, in bytes
   * @param step bytes from one request's begin to that of the next, 1 or more
   * @param random whether chance orders the places
   * @param write whether they write {@code pattern}; else they read
   * @param flushInterval a flush after so many requests; 0 for none
   */
  public record Plan(
      long count,
      long nanosMax,
      int depth,
      int bytes,
      long offset,
      long step,
      boolean random,
      boolean write,
      byte pattern,
      long flushInterval) {
    public Plan {
      if (count < 1
          || nanosMax < 1
          || depth < 1
          || bytes < 1
          || offset < 0
          || step < 1
          || flushInterval < 0) {
        throw new IllegalArgumentException("a load has a request of a byte at least");
      }
    }
  }

  /**
   * What came of it.
   *
   * @param requests that were answered
   * @param nanos from the first request's begin to the last one's end
   */
  public record Result(long requests, long nanos) {
    /** Requests in a second. */
    public double perSecond() {
      return requests * (double) TimeUnit.SECONDS.toNanos(1) / nanos;
    }
  }

  /**
   * @throws IOException when the disk ends before the first request does
   */
  public DiskLoad(DiskImage disk, Plan plan) throws IOException {
    long last = disk.virtualBytes() - plan.bytes();
    if (plan.offset() > last) {
      throw new IOException(
          "requests of %d bytes from offset %d on do not fit into a disk of %d bytes"
              .formatted(plan.bytes(), plan.offset(), disk.virtualBytes()));
    }
    this.disk = disk;
    this.plan = plan;
    this.places = (last - plan.offset()) / plan.step() + 1;
  }

  /** Runs it once; the calling thread takes part. */
  public Result run() throws IOException {
    long start = System.nanoTime();
    Crew.run(plan.depth(), stop -> work(start, stop));
    return new Result(done.get(), Math.max(1, System.nanoTime() - start));
  }

  private void work(long start, Crew.Stop stop) throws IOException {
    ByteBuffer buffer = ByteBuffer.allocateDirect(plan.bytes());
    while (buffer.hasRemaining()) {
      buffer.put(plan.pattern());
    }
    RandomGenerator chance = RandomGeneratorFactory.of(GENERATOR).create();
    while (!stop.stopped() && System.nanoTime() - start < plan.nanosMax()) {
      long number = begun.getAndIncrement();
      if (number >= plan.count()) {
        return;
      }
      long place = plan.random() ? chance.nextLong(places) : number % places;
      request(plan.offset() + place * plan.step(), buffer.clear());
      long answered = done.incrementAndGet();
      if (plan.flushInterval() != 0 && answered % plan.flushInterval() == 0) {
        disk.flush();
      }
    }
  }

  private void request(long offset, ByteBuffer buffer) throws IOException {
    if (plan.write()) {
      disk.write(offset, buffer);
    } else {
      disk.read(offset, buffer);
    }
  }
}
