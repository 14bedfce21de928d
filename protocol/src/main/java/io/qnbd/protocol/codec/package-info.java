/** Netty handlers and encoders: bytes of the wire to values and back. */
package io.qnbd.protocol.codec;
