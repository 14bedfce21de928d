package io.qnbd.server.tls;

import java.io.IOException;
import java.io.StringWriter;
import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.interfaces.ECPrivateKey;
import java.security.spec.AlgorithmParameterSpec;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.RSAKeyGenParameterSpec;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import org.bouncycastle.asn1.ASN1Encodable;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.sec.SECObjectIdentifiers;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.util.io.pem.PemObject;
import org.bouncycastle.util.io.pem.PemWriter;

/** Certificates that {@link GeneratedCertificates} would not make. */
final class TestCertificates {
  /** How a private key is written, and of which kind it is. */
  enum Kind {
    RSA_PKCS8("RSA", "SHA256withRSA"),
    RSA_PKCS1("RSA", "SHA256withRSA"),
    EC_PKCS8("EC", "SHA256withECDSA"),
    EC_SEC1("EC", "SHA256withECDSA"),
    ED25519("Ed25519", "Ed25519");

    final String algorithm;
    final String signature;

    Kind(String algorithm, String signature) {
      this.algorithm = algorithm;
      this.signature = signature;
    }

    KeyPair newPair() throws Exception {
      KeyPairGenerator generator = KeyPairGenerator.getInstance(algorithm);
      AlgorithmParameterSpec parameters =
          switch (algorithm) {
            case "RSA" -> new RSAKeyGenParameterSpec(2048, RSAKeyGenParameterSpec.F4);
            case "EC" -> new ECGenParameterSpec("secp256r1");
            default -> null;
          };
      if (parameters != null) {
        generator.initialize(parameters);
      }
      return generator.generateKeyPair();
    }
  }

  private TestCertificates() {}

  /** A certificate that signed itself, as {@code server-cert.pem}, and its key. */
  static TlsFiles.X509 selfSigned(Path directory, Kind kind, Duration validFor) throws Exception {
    KeyPair keys = kind.newPair();
    X500Name name = new X500Name("CN=" + kind);
    Instant now = Instant.now();
    X509CertificateHolder certificate =
        new JcaX509v3CertificateBuilder(
                name,
                BigInteger.TEN,
                Date.from(now.minus(Duration.ofDays(2))),
                Date.from(now.plus(validFor)),
                name,
                keys.getPublic())
            .addExtension(Extension.basicConstraints, true, new BasicConstraints(true))
            .build(new JcaContentSignerBuilder(kind.signature).build(keys.getPrivate()));
    Path file = directory.resolve("server-cert.pem");
    Files.writeString(
        file, "Text that some tools put in front.\n" + pem("CERTIFICATE", certificate));
    Path key = directory.resolve("server-key.pem");
    Files.writeString(key, pem(kind, keys.getPrivate()));
    return new TlsFiles.X509(file, key, null, false);
  }

  private static String pem(Kind kind, PrivateKey key) throws Exception {
    PrivateKeyInfo info = PrivateKeyInfo.getInstance(key.getEncoded());
    return switch (kind) {
      case RSA_PKCS8, EC_PKCS8, ED25519 -> pem("PRIVATE KEY", info);
      case RSA_PKCS1 -> pem("RSA PRIVATE KEY", info.parsePrivateKey());
      case EC_SEC1 ->
          pem("EC PARAMETERS", SECObjectIdentifiers.secp256r1)
              + pem(
                  "EC PRIVATE KEY",
                  new org.bouncycastle.asn1.sec.ECPrivateKey(
                      256, ((ECPrivateKey) key).getS(), SECObjectIdentifiers.secp256r1));
    };
  }

  private static String pem(String label, ASN1Encodable content) throws IOException {
    return pem(label, content.toASN1Primitive().getEncoded());
  }

  private static String pem(String label, X509CertificateHolder content) throws IOException {
    return pem(label, content.getEncoded());
  }

  static String pem(String label, byte[] content) throws IOException {
    StringWriter text = new StringWriter();
    try (PemWriter writer = new PemWriter(text)) {
      writer.writeObject(new PemObject(label, content));
    }
    return text.toString();
  }
}
