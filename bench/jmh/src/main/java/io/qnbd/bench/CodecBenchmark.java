package io.qnbd.bench;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.embedded.EmbeddedChannel;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.codec.ReplyEncoder;
import io.qnbd.protocol.codec.RequestDecoder;
import io.qnbd.protocol.codec.RequestListener;
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

/** 64 READ requests that came in one segment, and the headers of their replies. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class CodecBenchmark {
  private static final int REQUESTS = 64;
  private static final int REQUEST_MAGIC = 0x25609513;

  private final ByteBuf segment = Unpooled.directBuffer(REQUESTS * 28);
  private final ByteBuf replies = Unpooled.directBuffer(REQUESTS * 64);
  private final ReplyEncoder encoder = new ReplyEncoder(ReplyMode.STRUCTURED);
  private final Counting listener = new Counting();
  private final EmbeddedChannel channel =
      new EmbeddedChannel(new RequestDecoder(listener, ReplyMode.STRUCTURED, 1 << 20));

  private static final class Counting implements RequestListener {
    private long received;
    private Request.Read last = new Request.Read(0, 0, 0, 4096);

    @Override
    public Admission admit(Request request) {
      return Admission.ACCEPT;
    }

    @Override
    public void received(Request request, ByteBuf data) {
      received++;
      last = (Request.Read) request;
      data.release();
    }

    @Override
    public void paused() {}

    @Override
    public void malformed(String reason) {
      throw new AssertionError(reason);
    }
  }

  /** Writes the requests once; each invocation reads them again. */
  @Setup
  public void write() {
    for (int i = 0; i < REQUESTS; i++) {
      segment.writeInt(REQUEST_MAGIC).writeShort(0).writeShort(0).writeLong(i);
      segment.writeLong(i * 4096L).writeInt(4096);
    }
  }

  /** Time for each request. */
  @Benchmark
  @OperationsPerInvocation(REQUESTS)
  public long decode() {
    channel.pipeline().fireChannelRead(segment.retainedDuplicate());
    return listener.received;
  }

  /** Time for each reply's header. */
  @Benchmark
  @OperationsPerInvocation(REQUESTS)
  public int encode() {
    replies.clear();
    Request.Read read = listener.last;
    for (int i = 0; i < REQUESTS; i++) {
      encoder.put(replies, new Reply.Data(read));
    }
    return replies.writerIndex();
  }
}
