package io.qnbd.server.tls;

import io.netty.buffer.ByteBufAllocator;
import io.netty.channel.ChannelHandler;

/** One state of the credentials' files; makes handlers that go by it. Thread-safe. */
interface Acceptor {
  /** A handler for one connection. Does no I/O and never waits. */
  ChannelHandler newHandler(ByteBufAllocator allocator);
}
