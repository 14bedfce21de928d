package io.qnbd.server.tls;

import java.io.IOException;
import java.security.SecureRandom;
import java.util.Vector;
import org.bouncycastle.tls.AbstractTlsClient;
import org.bouncycastle.tls.AlertDescription;
import org.bouncycastle.tls.BasicTlsPSKExternal;
import org.bouncycastle.tls.BasicTlsPSKIdentity;
import org.bouncycastle.tls.ProtocolVersion;
import org.bouncycastle.tls.TlsAuthentication;
import org.bouncycastle.tls.TlsFatalAlert;
import org.bouncycastle.tls.TlsPSKIdentity;
import org.bouncycastle.tls.TlsUtils;
import org.bouncycastle.tls.crypto.TlsCrypto;
import org.bouncycastle.tls.crypto.impl.bc.BcTlsCrypto;
import org.bouncycastle.tls.crypto.impl.jcajce.JcaTlsCryptoProvider;

/** What a client with a key wants of its handshake. */
final class PskClient extends AbstractTlsClient {
  private final ProtocolVersion version;
  private final int[] ciphers;
  private final byte[] identity;
  private final byte[] key;
  private short alertReceived = -1;

  PskClient(ProtocolVersion version, byte[] identity, byte[] key, int... ciphers) {
    super(crypto(ciphers));
    this.version = version;
    this.ciphers = ciphers;
    this.identity = identity;
    this.key = key;
  }

  /** The JDK's ciphers are fast where it has them, which matters for large data. */
  private static TlsCrypto crypto(int... ciphers) {
    TlsCrypto fast = new JcaTlsCryptoProvider().create(new SecureRandom());
    return TlsUtils.getSupportedCipherSuites(fast, ciphers).length == ciphers.length
        ? fast
        : new BcTlsCrypto(new SecureRandom());
  }

  /** The server's last alert, or -1. */
  short alertReceived() {
    return alertReceived;
  }

  @Override
  public void notifyAlertReceived(short level, short description) {
    alertReceived = description;
  }

  @Override
  protected ProtocolVersion[] getSupportedVersions() {
    return version.only();
  }

  @Override
  protected int[] getSupportedCipherSuites() {
    return ciphers;
  }

  @Override
  public TlsPSKIdentity getPSKIdentity() {
    return new BasicTlsPSKIdentity(identity, key);
  }

  @Override
  @SuppressWarnings({"rawtypes", "JdkObsolete"}) // the type of the library
  public Vector getExternalPSKs() {
    return TlsUtils.vectorOfOne(
        new BasicTlsPSKExternal(identity, getCrypto().createSecret(key.clone())));
  }

  @Override
  public TlsAuthentication getAuthentication() throws IOException {
    throw new TlsFatalAlert(AlertDescription.unexpected_message);
  }
}
