package io.qnbd.server.tls;

import io.netty.buffer.ByteBufAllocator;
import io.netty.channel.ChannelHandler;
import java.io.IOException;
import org.bouncycastle.tls.crypto.TlsCrypto;

/** TLS with pre-shared keys, which the JDK lacks: Bouncy Castle's. */
final class PskAcceptor implements Acceptor {
  private final PskKeys keys;
  private final TlsCrypto crypto = new PskCrypto();

  private PskAcceptor(PskKeys keys) {
    this.keys = keys;
  }

  static PskAcceptor load(TlsFiles.Psk files) throws IOException {
    return new PskAcceptor(PskKeys.read(files.keys()));
  }

  @Override
  public ChannelHandler newHandler(ByteBufAllocator allocator) {
    return new PskHandler(new PskServer(crypto, keys));
  }
}
