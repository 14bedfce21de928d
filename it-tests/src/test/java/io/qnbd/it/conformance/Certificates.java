package io.qnbd.it.conformance;

import io.qnbd.it.QnbdProcess;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedKeyManager;
import org.jspecify.annotations.Nullable;

/**
 * The keys that the server makes for a first try, and a client that trusts its authority.
 *
 * @param dir has ca-cert.pem, server-cert.pem and server-key.pem
 */
record Certificates(Path dir, TrustManagerFactory trust) {
  private static final char[] PASSWORD = {};

  static Certificates generate(Path dir) throws IOException, GeneralSecurityException {
    QnbdProcess.run("serve", "--tls-generate", dir.toString()).mustExit(0);
    Certificate authority;
    try (InputStream in = Files.newInputStream(dir.resolve("ca-cert.pem"))) {
      authority = CertificateFactory.getInstance("X.509").generateCertificate(in);
    }
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    trusted.setCertificateEntry("ca", authority);
    TrustManagerFactory trust =
        TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    return new Certificates(dir, trust);
  }

  /** A client that shows the client's certificate of {@code issuer}, signed by its authority. */
  SSLEngine clientWith(Certificates issuer) throws IOException, GeneralSecurityException {
    CertificateFactory x509 = CertificateFactory.getInstance("X.509");
    Certificate own;
    try (InputStream in = Files.newInputStream(issuer.dir.resolve("client-cert.pem"))) {
      own = x509.generateCertificate(in);
    }
    String pem = Files.readString(issuer.dir.resolve("client-key.pem"));
    byte[] der = Base64.getMimeDecoder().decode(pem.replaceAll("-----[A-Z ]+-----", ""));
    PrivateKey key =
        KeyFactory.getInstance(own.getPublicKey().getAlgorithm())
            .generatePrivate(new PKCS8EncodedKeySpec(der));
    KeyStore keys = KeyStore.getInstance(KeyStore.getDefaultType());
    keys.load(null, null);
    keys.setKeyEntry("client", key, PASSWORD, new Certificate[] {own});
    KeyManagerFactory shown =
        KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    shown.init(keys, PASSWORD);
    SSLContext withCertificate = SSLContext.getInstance("TLS");
    withCertificate.init(eager(shown), trust.getTrustManagers(), null);
    return engine(withCertificate);
  }

  /** Shows the one certificate there is, also to a server that lists other authorities. */
  private static KeyManager[] eager(KeyManagerFactory factory) {
    X509ExtendedKeyManager keys = (X509ExtendedKeyManager) factory.getKeyManagers()[0];
    return new KeyManager[] {new OneKey(keys)};
  }

  /** A client that offers these versions, or all that the JDK has when there are none. */
  SSLEngine client(String... versions) {
    SSLEngine engine;
    try {
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(null, trust.getTrustManagers(), null);
      engine = engine(context);
    } catch (GeneralSecurityException e) {
      throw new AssertionError("a JDK without TLS", e);
    }
    if (versions.length > 0) {
      engine.setEnabledProtocols(versions);
    }
    return engine;
  }

  private static SSLEngine engine(SSLContext context) {
    SSLEngine engine = context.createSSLEngine("localhost", 10809);
    engine.setUseClientMode(true);
    return engine;
  }

  /** A key manager whose client always shows its certificate. */
  private static final class OneKey extends X509ExtendedKeyManager {
    private final X509ExtendedKeyManager keys;

    OneKey(X509ExtendedKeyManager keys) {
      this.keys = keys;
    }

    @Override
    public String chooseEngineClientAlias(
        String[] types, Principal @Nullable [] issuers, SSLEngine engine) {
      return "client";
    }

    @Override
    public String chooseClientAlias(String[] types, Principal @Nullable [] issuers, Socket socket) {
      return "client";
    }

    @Override
    public String @Nullable [] getClientAliases(String type, Principal @Nullable [] issuers) {
      return new String[] {"client"};
    }

    @Override
    public String @Nullable [] getServerAliases(String type, Principal @Nullable [] issuers) {
      return null;
    }

    @Override
    public @Nullable String chooseServerAlias(
        String type, Principal @Nullable [] issuers, Socket socket) {
      return null;
    }

    @Override
    public X509Certificate @Nullable [] getCertificateChain(String alias) {
      return keys.getCertificateChain(alias);
    }

    @Override
    public @Nullable PrivateKey getPrivateKey(String alias) {
      return keys.getPrivateKey(alias);
    }
  }
}
