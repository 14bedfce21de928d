package io.qnbd.server.tls;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.List;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.edec.EdECObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x9.X9ObjectIdentifiers;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.openssl.PEMEncryptedKeyPair;
import org.bouncycastle.openssl.PEMKeyPair;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.pkcs.PKCS8EncryptedPrivateKeyInfo;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What is in a PEM file (RFC 7468, and OpenSSL's older labels). Text between the blocks is skipped,
 * as are blocks of other kinds, so that a certificate and its key may share a file.
 */
final class PemFile {
  private static final Logger log = LoggerFactory.getLogger(PemFile.class);

  /** A chain or a bundle of all of the web's authorities is a quarter of this. */
  private static final long BYTES_MAX = 1 << 20;

  private final Path file;
  private final List<Object> blocks;

  private PemFile(Path file, List<Object> blocks) {
    this.file = file;
    this.blocks = blocks;
  }

  /** The certificates in the order of the file; at least one. */
  static List<X509Certificate> certificates(Path file) throws IOException {
    return read(file).certificates();
  }

  /** The file's private key; warns if everybody may read it. */
  static PrivateKey privateKey(Path file) throws IOException {
    PemFile pem = read(file);
    warnIfReadableByOthers(file);
    return pem.privateKey();
  }

  /** A key that everybody on the machine can read proves little, but may be what is wanted. */
  static void warnIfReadableByOthers(Path file) throws IOException {
    if (Files.getPosixFilePermissions(file).contains(PosixFilePermission.OTHERS_READ)) {
      log.warn("{} holds a secret that every user can read: chmod o= it", file);
    }
  }

  /** The text of a small file. */
  static String text(Path file) throws IOException {
    long bytes = Files.size(file);
    if (bytes > BYTES_MAX) {
      throw new IOException(
          "%s: is %d bytes long, expected at most %d".formatted(file, bytes, BYTES_MAX));
    }
    return new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1);
  }

  private static PemFile read(Path file) throws IOException {
    List<Object> blocks = new ArrayList<>();
    try (PEMParser parser = new PEMParser(new StringReader(text(file)))) {
      for (Object block = parser.readObject(); block != null; block = parser.readObject()) {
        blocks.add(block);
      }
    } catch (java.nio.file.FileSystemException e) {
      throw e;
    } catch (IOException | RuntimeException e) {
      throw new IOException("%s: is damaged (%s)".formatted(file, e.getMessage()), e);
    }
    return new PemFile(file, blocks);
  }

  private List<X509Certificate> certificates() throws IOException {
    List<X509Certificate> certificates = new ArrayList<>();
    for (Object block : blocks) {
      if (block instanceof X509CertificateHolder holder) {
        certificates.add(certificate(holder));
      }
    }
    if (certificates.isEmpty()) {
      throw new IOException(file + ": holds no certificate, expected one in PEM");
    }
    return certificates;
  }

  private X509Certificate certificate(X509CertificateHolder holder) throws IOException {
    try {
      CertificateFactory factory = CertificateFactory.getInstance("X.509");
      return (X509Certificate)
          factory.generateCertificate(new ByteArrayInputStream(holder.getEncoded()));
    } catch (CertificateException e) {
      throw new IOException(
          "%s: holds a certificate that Java does not take (%s)".formatted(file, e.getMessage()),
          e);
    }
  }

  private PrivateKey privateKey() throws IOException {
    for (Object block : blocks) {
      switch (block) {
        case PrivateKeyInfo key -> {
          return privateKey(key);
        }
        case PEMKeyPair pair -> {
          return privateKey(pair.getPrivateKeyInfo());
        }
        case PEMEncryptedKeyPair _, PKCS8EncryptedPrivateKeyInfo _ ->
            throw new IOException(
                file + ": the private key is encrypted; decrypt it, with 'openssl pkey' say");
        default -> {}
      }
    }
    throw new IOException(file + ": holds no private key, expected one in PEM");
  }

  private PrivateKey privateKey(PrivateKeyInfo key) throws IOException {
    ASN1ObjectIdentifier kind = key.getPrivateKeyAlgorithm().getAlgorithm();
    String algorithm;
    if (kind.equals(PKCSObjectIdentifiers.rsaEncryption)) {
      algorithm = "RSA";
    } else if (kind.equals(X9ObjectIdentifiers.id_ecPublicKey)) {
      algorithm = "EC";
    } else if (kind.equals(EdECObjectIdentifiers.id_Ed25519)
        || kind.equals(EdECObjectIdentifiers.id_Ed448)) {
      algorithm = "EdDSA";
    } else {
      throw new IOException(
          "%s: the private key is of kind %s, expected RSA, EC or Ed25519".formatted(file, kind));
    }
    try {
      return KeyFactory.getInstance(algorithm)
          .generatePrivate(new PKCS8EncodedKeySpec(key.getEncoded()));
    } catch (GeneralSecurityException e) {
      throw new IOException(
          "%s: the private key is damaged or of a kind that Java does not know (%s)"
              .formatted(file, e.getMessage()),
          e);
    }
  }
}
