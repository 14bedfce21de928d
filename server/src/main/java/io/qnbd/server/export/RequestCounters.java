package io.qnbd.server.export;

import io.qnbd.protocol.Request;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.LongAdder;

/**
 * What clients asked of an export since it was opened, and how many there are.
 *
 * <p>Thread-safe; counted on the event loops, read by anyone.
 */
public final class RequestCounters {
  private final AtomicInteger connections = new AtomicInteger();
  private final LongAdder reads = new LongAdder();
  private final LongAdder readBytes = new LongAdder();
  private final LongAdder writes = new LongAdder();
  private final LongAdder writeBytes = new LongAdder();
  private final LongAdder zeroes = new LongAdder();
  private final LongAdder trims = new LongAdder();
  private final LongAdder flushes = new LongAdder();

  /** A client has chosen the export; {@link #disconnected} follows. */
  public void connected() {
    connections.incrementAndGet();
  }

  public void disconnected() {
    connections.decrementAndGet();
  }

  /** A request came that the rules allow. */
  public void accepted(Request request) {
    switch (request) {
      case Request.Read read -> {
        reads.increment();
        readBytes.add(read.bytes());
      }
      case Request.Write write -> {
        writes.increment();
        writeBytes.add(write.bytes());
      }
      case Request.WriteZeroes _ -> zeroes.increment();
      case Request.Trim _ -> trims.increment();
      case Request.Flush _ -> flushes.increment();
      case Request.Cache _,
          Request.BlockStatus _,
          Request.Disconnect _,
          Request.Unknown _,
          Request.Malformed _ -> {}
    }
  }

  public int connections() {
    return connections.get();
  }

  public long reads() {
    return reads.sum();
  }

  public long readBytes() {
    return readBytes.sum();
  }

  public long writes() {
    return writes.sum();
  }

  public long writeBytes() {
    return writeBytes.sum();
  }

  public long zeroes() {
    return zeroes.sum();
  }

  public long trims() {
    return trims.sum();
  }

  public long flushes() {
    return flushes.sum();
  }
}
