package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.channel.AdaptiveRecvByteBufAllocator;
import io.netty.channel.RecvByteBufAllocator;
import io.netty.util.UncheckedBooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * Where the bytes of one channel are received: in the data of the WRITE that is being collected
 * when that is what comes next, so that large data is not copied, and in small buffers otherwise.
 *
 * <p>Behind TLS nothing is received in place, because what the channel reads is not the data.
 *
 * <p>Must be set on the channel before it is first read, because Netty then keeps the handle.
 *
 * <p>Owner: the channel's event loop.
 */
public final class ReceiveBuffers implements RecvByteBufAllocator {
  // Their largest size, 64 KiB, bounds what the slice of a small WRITE keeps from being released.
  private final RecvByteBufAllocator others = new AdaptiveRecvByteBufAllocator();
  private @Nullable RequestDecoder decoder;

  /** Lends nothing until it is told from whom. */
  public ReceiveBuffers() {}

  /** From now on asks {@code decoder} what comes next. */
  public void use(RequestDecoder user) {
    decoder = user;
  }

  @Override
  public ExtendedHandle newHandle() {
    return new LendingHandle();
  }

  private final class LendingHandle extends DelegatingHandle implements ExtendedHandle {
    LendingHandle() {
      super(others.newHandle());
    }

    @Override
    public ByteBuf allocate(ByteBufAllocator allocator) {
      RequestDecoder user = decoder;
      ByteBuf lent = user == null ? null : user.lend();
      return lent == null ? delegate().allocate(allocator) : lent;
    }

    @Override
    public boolean continueReading(UncheckedBooleanSupplier maybeMore) {
      return ((ExtendedHandle) delegate()).continueReading(maybeMore);
    }
  }
}
