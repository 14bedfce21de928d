package io.qnbd.server.tls;

import java.io.IOException;
import java.net.Socket;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedKeyManager;
import org.jspecify.annotations.Nullable;

/** The JDK's TLS as a client. */
final class JdkClient {
  private static final char[] NO_PASSWORD = {};

  private final SSLContext context;
  private String[] protocols = {"TLSv1.3", "TLSv1.2"};

  private JdkClient(SSLContext context) {
    this.context = context;
  }

  /** Without a certificate of its own. */
  static JdkClient believing(Path authority) throws Exception {
    return of(authority, null);
  }

  /** With the client's files of a directory. */
  static JdkClient believing(Path authority, Path directory) throws Exception {
    PrivateKey key = PemFile.privateKey(directory.resolve(TlsFiles.CLIENT_KEY));
    X509Certificate[] chain =
        PemFile.certificates(directory.resolve(TlsFiles.CLIENT_CERTIFICATE))
            .toArray(X509Certificate[]::new);
    return of(authority, new KeyManager[] {new Stubborn(key, chain)});
  }

  private static JdkClient of(Path authority, KeyManager @Nullable [] keys) throws Exception {
    KeyStore store = emptyStore();
    int n = 0;
    for (X509Certificate certificate : PemFile.certificates(authority)) {
      store.setCertificateEntry("authority" + n++, certificate);
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys, trust.getTrustManagers(), null);
    return new JdkClient(context);
  }

  private static KeyStore emptyStore() throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, NO_PASSWORD);
    return store;
  }

  JdkClient speaking(String protocol) {
    protocols = new String[] {protocol};
    return this;
  }

  /** A socket on which no handshake has begun. */
  SSLSocket over(Socket socket) throws IOException {
    SSLSocket secured =
        (SSLSocket) context.getSocketFactory().createSocket(socket, "localhost", 0, true);
    secured.setEnabledProtocols(protocols);
    return secured;
  }

  /** As {@link #over}, and the server's certificate must name {@code host}. */
  SSLSocket over(Socket socket, String host) throws IOException {
    SSLSocket secured = (SSLSocket) context.getSocketFactory().createSocket(socket, host, 0, true);
    SSLParameters parameters = secured.getSSLParameters();
    parameters.setEndpointIdentificationAlgorithm("HTTPS");
    secured.setSSLParameters(parameters);
    return secured;
  }

  /** Shows its certificate also to a server that wants those of other authorities. */
  private static final class Stubborn extends X509ExtendedKeyManager {
    private static final String ALIAS = "client";

    private final PrivateKey key;
    private final X509Certificate[] chain;

    Stubborn(PrivateKey key, X509Certificate[] chain) {
      this.key = key;
      this.chain = chain;
    }

    @Override
    public String chooseClientAlias(
        String[] keyTypes, Principal @Nullable [] issuers, @Nullable Socket socket) {
      return ALIAS;
    }

    @Override
    public X509Certificate[] getCertificateChain(String alias) {
      return chain.clone();
    }

    @Override
    public PrivateKey getPrivateKey(String alias) {
      return key;
    }

    @Override
    public String[] getClientAliases(String keyType, Principal @Nullable [] issuers) {
      return new String[] {ALIAS};
    }

    @Override
    public String @Nullable [] getServerAliases(String keyType, Principal @Nullable [] issuers) {
      return null;
    }

    @Override
    public @Nullable String chooseServerAlias(
        String keyType, Principal @Nullable [] issuers, @Nullable Socket socket) {
      return null;
    }
  }
}
