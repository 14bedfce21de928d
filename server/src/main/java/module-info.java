/** The qnbd command line, its exports and its sessions: joins the image engine to the NBD wire. */
@org.jspecify.annotations.NullMarked
module io.qnbd.server {
  requires static org.jspecify;
  requires ch.qos.logback.classic;
  requires ch.qos.logback.core;
  requires info.picocli;
  requires io.qnbd.image;
  requires io.qnbd.protocol;
  requires io.netty.buffer;
  requires io.netty.codec;
  requires io.netty.common;
  requires io.netty.handler;
  requires io.netty.transport;
  requires io.netty.transport.classes.epoll;
  requires io.netty.transport.unix.common;
  requires org.bouncycastle.pkix;
  requires org.bouncycastle.provider;
  requires org.bouncycastle.tls;
  requires org.slf4j;
  requires org.tomlj;
  requires tools.jackson.core;
  requires jdk.net; // TCP keepalive where Netty's native library does not work
  requires jdk.unsupported; // sun.misc.Signal, see UserSignal

  // slf4j makes the LogService.
  exports io.qnbd.server.log to
      org.slf4j;

  // picocli fills the fields of the commands.
  opens io.qnbd.server to
      info.picocli;
}
