package io.qnbd.server.tls;

import java.io.IOException;
import java.security.SecureRandom;
import org.bouncycastle.jcajce.util.DefaultJcaJceHelper;
import org.bouncycastle.tls.EncryptionAlgorithm;
import org.bouncycastle.tls.crypto.TlsCipher;
import org.bouncycastle.tls.crypto.TlsCryptoParameters;
import org.bouncycastle.tls.crypto.impl.TlsAEADCipher;
import org.bouncycastle.tls.crypto.impl.bc.BcChaCha20Poly1305;
import org.bouncycastle.tls.crypto.impl.jcajce.JcaTlsCrypto;

/**
 * The JDK's cryptography for Bouncy Castle's TLS, because it uses the processor's AES instructions.
 * ChaCha20 alone is Bouncy Castle's own: it would look for the JDK's by a name that the JDK does
 * not have, and it is all that some GnuTLS releases offer together with ECDHE-PSK. Thread-safe.
 */
final class PskCrypto extends JcaTlsCrypto {
  private static final int CHACHA20_KEY_BYTES = 32;
  private static final int POLY1305_TAG_BYTES = 16;

  PskCrypto() {
    super(new DefaultJcaJceHelper(), new SecureRandom(), new SecureRandom());
  }

  @Override
  public boolean hasEncryptionAlgorithm(int algorithm) {
    return algorithm == EncryptionAlgorithm.CHACHA20_POLY1305
        || super.hasEncryptionAlgorithm(algorithm);
  }

  @Override
  public TlsCipher createCipher(TlsCryptoParameters parameters, int algorithm, int macAlgorithm)
      throws IOException {
    if (algorithm != EncryptionAlgorithm.CHACHA20_POLY1305) {
      return super.createCipher(parameters, algorithm, macAlgorithm);
    }
    return new TlsAEADCipher(
        parameters,
        new BcChaCha20Poly1305(true),
        new BcChaCha20Poly1305(false),
        CHACHA20_KEY_BYTES,
        POLY1305_TAG_BYTES,
        TlsAEADCipher.AEAD_CHACHA20_POLY1305,
        null);
  }
}
