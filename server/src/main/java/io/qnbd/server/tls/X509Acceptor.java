package io.qnbd.server.tls;

import io.netty.buffer.ByteBufAllocator;
import io.netty.channel.ChannelHandler;
import io.netty.handler.ssl.ClientAuth;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslHandler;
import io.netty.handler.ssl.SslProvider;
import io.netty.handler.ssl.SupportedCipherSuiteFilter;
import java.io.IOException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.Signature;
import java.security.cert.CertificateExpiredException;
import java.security.cert.CertificateNotYetValidException;
import java.security.cert.X509Certificate;
import java.util.List;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.SSLSession;
import javax.security.auth.x500.X500Principal;
import org.jspecify.annotations.Nullable;

/** TLS with certificates: the JDK's engine in Netty's handler. */
final class X509Acceptor implements Acceptor {
  /** Forward secrecy and authenticated encryption only; every client of the last decade has one. */
  private static final List<String> CIPHERS =
      List.of(
          "TLS_AES_256_GCM_SHA384",
          "TLS_AES_128_GCM_SHA256",
          "TLS_CHACHA20_POLY1305_SHA256",
          "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
          "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
          "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
          "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
          "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
          "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
          "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
          "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
          "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256");

  private final SslContext context;

  private X509Acceptor(SslContext context) {
    this.context = context;
  }

  static X509Acceptor load(TlsFiles.X509 files) throws IOException {
    List<X509Certificate> chain = PemFile.certificates(files.certificates());
    requireChain(files.certificates(), chain);
    PrivateKey key = PemFile.privateKey(files.key());
    requirePair(files, chain.getFirst().getPublicKey(), key);
    SslContextBuilder builder =
        SslContextBuilder.forServer(key, chain)
            .sslProvider(SslProvider.JDK)
            .protocols("TLSv1.3", "TLSv1.2")
            .ciphers(CIPHERS, SupportedCipherSuiteFilter.INSTANCE);
    Path authorities = files.authorities();
    if (authorities != null) {
      builder
          .trustManager(PemFile.certificates(authorities))
          .clientAuth(files.verifyClient() ? ClientAuth.REQUIRE : ClientAuth.OPTIONAL);
    }
    try {
      return new X509Acceptor(builder.build());
    } catch (SSLException | IllegalArgumentException e) {
      throw new IOException(
          "%s: cannot be used (%s)".formatted(files.certificates(), e.getMessage()), e);
    }
  }

  @Override
  public ChannelHandler newHandler(ByteBufAllocator allocator) {
    return context.newHandler(allocator);
  }

  static @Nullable TlsIdentity identityOf(SslHandler handler) {
    if (!handler.handshakeFuture().isSuccess()) {
      return null;
    }
    SSLSession session = handler.engine().getSession();
    return new TlsIdentity(subject(session), session.getProtocol());
  }

  private static String subject(SSLSession session) {
    try {
      return session.getPeerPrincipal() instanceof X500Principal subject
          ? subject.getName(X500Principal.RFC2253)
          : "";
    } catch (SSLPeerUnverifiedException _) {
      return ""; // it was not asked, or had none to show
    }
  }

  /** The key store would only say that the chain is not valid. */
  private static void requireChain(Path file, List<X509Certificate> chain) throws IOException {
    for (int i = 0; i < chain.size(); i++) {
      X509Certificate certificate = chain.get(i);
      String who = certificate.getSubjectX500Principal().getName();
      try {
        certificate.checkValidity();
      } catch (CertificateExpiredException e) {
        throw new IOException(
            "%s: the certificate of %s expired on %s"
                .formatted(file, who, certificate.getNotAfter().toInstant()),
            e);
      } catch (CertificateNotYetValidException e) {
        throw new IOException(
            "%s: the certificate of %s is not valid before %s"
                .formatted(file, who, certificate.getNotBefore().toInstant()),
            e);
      }
      if (i > 0
          && !chain
              .get(i - 1)
              .getIssuerX500Principal()
              .equals(certificate.getSubjectX500Principal())) {
        throw new IOException(
            "%s: certificate %d, of %s, did not issue the one before it; expected the server's own"
                    .formatted(file, i + 1, who)
                + " first, then its issuer's, and so on");
      }
    }
  }

  private static void requirePair(TlsFiles.X509 files, PublicKey known, PrivateKey key)
      throws IOException {
    if (!areOnePair(known, key)) {
      throw new IOException(
          "%s: is not the private key of the certificate in %s"
              .formatted(files.key(), files.certificates()));
    }
  }

  private static boolean areOnePair(PublicKey known, PrivateKey key) {
    String algorithm =
        switch (key.getAlgorithm()) {
          case "RSA" -> "SHA256withRSA";
          case "EC" -> "SHA256withECDSA";
          default -> "EdDSA";
        };
    try {
      byte[] text = {1, 2, 3, 4};
      Signature signing = Signature.getInstance(algorithm);
      signing.initSign(key);
      signing.update(text);
      byte[] signature = signing.sign();
      Signature verifying = Signature.getInstance(algorithm);
      verifying.initVerify(known);
      verifying.update(text);
      return verifying.verify(signature);
    } catch (GeneralSecurityException _) {
      return false; // of two kinds
    }
  }
}
