/** The NBD wire: messages as values, and the Netty handlers that read and write them. */
@org.jspecify.annotations.NullMarked
module io.qnbd.protocol {
  requires static transitive org.jspecify;
  requires transitive io.netty.buffer;
  requires transitive io.netty.transport;
  requires io.netty.common;
  requires io.netty.handler;

  exports io.qnbd.protocol;
  exports io.qnbd.protocol.codec;
  exports io.qnbd.protocol.handshake;
}
