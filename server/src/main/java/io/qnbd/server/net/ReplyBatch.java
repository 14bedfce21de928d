package io.qnbd.server.net;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelPromise;
import org.jspecify.annotations.Nullable;

/**
 * Replies on their way into the channel: short ones stand one behind the other in a buffer, so that
 * many leave with one system call; what has a buffer of its own goes in between.
 *
 * <p>Owner: the connection's event loop.
 */
final class ReplyBatch {
  /** The longest buffer that is made for more than one reply. */
  static final int BYTES_MAX = 256 << 10;

  private static final int BYTES_MIN = 512;

  private final Channel channel;
  private @Nullable ByteBuf open;
  private boolean empty = true;

  /** What this flush and the one before it took of such buffers: the next may need as much. */
  private int bytes;

  private int bytesBefore;

  ReplyBatch(Channel channel) {
    this.channel = channel;
  }

  /** Where a reply of at most {@code needed} bytes is put; the buffer stays this object's. */
  ByteBuf room(int needed) {
    ByteBuf current = open;
    if (current == null || current.writableBytes() < needed) {
      write(current);
      int likely = Math.min(Math.max(bytesBefore, BYTES_MIN), BYTES_MAX);
      current = channel.alloc().directBuffer(Math.max(needed, likely));
      open = current;
    }
    empty = false;
    return current;
  }

  /** Adds a reply that has a buffer of its own, which is taken over. */
  void add(ByteBuf reply) {
    write(open);
    open = null;
    write(reply);
    empty = false;
  }

  boolean isEmpty() {
    return empty;
  }

  /** Bytes that wait in the buffer for short replies. */
  int waitingBytes() {
    ByteBuf current = open;
    return current == null ? 0 : current.readableBytes();
  }

  /** Sends all; {@code sent} is done when the last byte has reached the socket. */
  void flush(ChannelPromise sent) {
    ByteBuf last = open;
    open = null;
    empty = true;
    if (last != null) {
      bytes += last.readableBytes();
    }
    bytesBefore = bytes;
    bytes = 0;
    var _ = channel.writeAndFlush(last == null ? Unpooled.EMPTY_BUFFER : last, sent);
  }

  private void write(@Nullable ByteBuf out) {
    if (out != null) {
      bytes += out.readableBytes();
      var _ = channel.write(out, channel.voidPromise());
    }
  }
}
