package io.qnbd.server.tls;

import java.io.IOException;
import java.util.Hashtable;
import java.util.List;
import java.util.Vector;
import org.bouncycastle.tls.AbstractTlsServer;
import org.bouncycastle.tls.AlertDescription;
import org.bouncycastle.tls.BasicTlsPSKExternal;
import org.bouncycastle.tls.CipherSuite;
import org.bouncycastle.tls.KeyExchangeAlgorithm;
import org.bouncycastle.tls.ProtocolVersion;
import org.bouncycastle.tls.PskIdentity;
import org.bouncycastle.tls.TlsCredentials;
import org.bouncycastle.tls.TlsExtensionsUtils;
import org.bouncycastle.tls.TlsFatalAlert;
import org.bouncycastle.tls.TlsPSKExternal;
import org.bouncycastle.tls.TlsPSKIdentityManager;
import org.bouncycastle.tls.TlsUtils;
import org.bouncycastle.tls.crypto.TlsCrypto;
import org.jspecify.annotations.Nullable;

/**
 * What this server wants of one handshake with pre-shared keys (RFC 4279, RFC 5489, RFC 8446).
 *
 * <p>A client with an unknown identity gets the same handshake with a key that nobody has, so that
 * it cannot tell whether the identity or the key was wrong.
 *
 * <p>Owner: the channel's event loop.
 */
final class PskServer extends AbstractTlsServer implements TlsPSKIdentityManager {
  /** Without forward secrecy only if the client has nothing else. */
  private static final int[] CIPHERS = {
    // TLS 1.3: those of SHA-256, because a key is bound to one hash and that is the default one.
    CipherSuite.TLS_AES_128_GCM_SHA256,
    CipherSuite.TLS_CHACHA20_POLY1305_SHA256,
    // TLS 1.2
    CipherSuite.TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384,
    CipherSuite.TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256,
    CipherSuite.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite.TLS_DHE_PSK_WITH_AES_256_GCM_SHA384,
    CipherSuite.TLS_DHE_PSK_WITH_AES_128_GCM_SHA256,
    CipherSuite.TLS_DHE_PSK_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite.TLS_PSK_WITH_AES_256_GCM_SHA384,
    CipherSuite.TLS_PSK_WITH_AES_128_GCM_SHA256,
    CipherSuite.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256,
  };

  private static final int UNKNOWN_KEY_BYTES = 32;

  private final PskKeys keys;
  private byte[] claimed = {};
  private boolean proved;

  PskServer(TlsCrypto crypto, PskKeys keys) {
    super(crypto);
    this.keys = keys;
  }

  /** Who the client is, or null as long as the handshake is not over. */
  @Nullable TlsIdentity identity() {
    if (!proved) {
      return null;
    }
    boolean newest = context.getServerVersion().equals(ProtocolVersion.TLSv13);
    return new TlsIdentity(PskKeys.name(claimed), newest ? "TLSv1.3" : "TLSv1.2");
  }

  @Override
  public void notifyHandshakeComplete() throws IOException {
    super.notifyHandshakeComplete();
    proved = true;
  }

  @Override
  protected ProtocolVersion[] getSupportedVersions() {
    return ProtocolVersion.TLSv13.downTo(ProtocolVersion.TLSv12);
  }

  @Override
  protected int[] getSupportedCipherSuites() {
    return TlsUtils.getSupportedCipherSuites(getCrypto(), CIPHERS);
  }

  @Override
  protected boolean preferLocalCipherSuites() {
    return true;
  }

  @Override
  @SuppressWarnings({"rawtypes", "JdkObsolete"}) // the type of the library
  public void processClientExtensions(Hashtable extensions) throws IOException {
    super.processClientExtensions(extensions);
    if (TlsUtils.isTLSv13(context)
        && TlsExtensionsUtils.getPreSharedKeyClientHello(extensions) == null) {
      throw new TlsFatalAlert(AlertDescription.handshake_failure, "the client offers no key");
    }
  }

  /** There are none: in TLS 1.3 the client offered no key in a mode with forward secrecy. */
  @Override
  public @Nullable TlsCredentials getCredentials() throws IOException {
    int exchange = context.getSecurityParametersHandshake().getKeyExchangeAlgorithm();
    return switch (exchange) {
      case KeyExchangeAlgorithm.PSK, KeyExchangeAlgorithm.DHE_PSK, KeyExchangeAlgorithm.ECDHE_PSK ->
          null;
      default -> throw new TlsFatalAlert(AlertDescription.handshake_failure, "no key in common");
    };
  }

  @Override
  public TlsPSKIdentityManager getPSKIdentityManager() {
    return this;
  }

  /** TLS 1.2: no hint, the client knows who it is. */
  @Override
  public byte @Nullable [] getHint() {
    return null;
  }

  /** TLS 1.2: the key of an identity; the caller wipes it. */
  @Override
  public byte[] getPSK(byte[] identity) {
    claimed = identity.clone();
    byte[] key = keys.key(identity);
    return key == null ? keyOfNobody() : key.clone();
  }

  /** TLS 1.3: chooses among the identities that the client offers. */
  @Override
  @SuppressWarnings({"rawtypes", "unchecked", "JdkObsolete"}) // the type of the library
  public TlsPSKExternal getExternalPSK(Vector identities) {
    List<PskIdentity> offered = identities;
    for (PskIdentity identity : offered) {
      byte[] key = keys.key(identity.getIdentity());
      if (key != null) {
        return external(identity, key);
      }
    }
    return external(offered.getFirst(), keyOfNobody());
  }

  private TlsPSKExternal external(PskIdentity identity, byte[] key) {
    claimed = identity.getIdentity().clone();
    return new BasicTlsPSKExternal(claimed, getCrypto().createSecret(key.clone()));
  }

  private byte[] keyOfNobody() {
    byte[] key = new byte[UNKNOWN_KEY_BYTES];
    getCrypto().getSecureRandom().nextBytes(key);
    return key;
  }
}
