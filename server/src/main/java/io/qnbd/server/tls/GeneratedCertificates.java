package io.qnbd.server.tls;

import java.io.IOException;
import java.math.BigInteger;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.SecureRandom;
import java.security.spec.ECGenParameterSpec;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.sec.ECPrivateKey;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x500.X500NameBuilder;
import org.bouncycastle.asn1.x500.style.BCStyle;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.ExtendedKeyUsage;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.asn1.x509.KeyPurposeId;
import org.bouncycastle.asn1.x509.KeyUsage;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509v3CertificateBuilder;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.operator.OperatorCreationException;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;

/**
 * An authority with a server and a client, made for a first try, in the directory layout of {@link
 * TlsFiles}. The authority's key is forgotten at once: it never signs anything else.
 *
 * <p>Keys are ECDSA on P-256, which every TLS library has. The key usages are what GnuTLS asks for.
 */
public final class GeneratedCertificates {
  /** What the strictest verifiers accept of a server. */
  private static final Duration VALID = Duration.ofDays(825);

  private static final Duration AUTHORITY_VALID = Duration.ofDays(3650);

  /** Clocks differ. */
  private static final Duration VALID_BEFORE = Duration.ofHours(1);

  /** RFC 5280, section 4.1.2.2: at most 20 octets, and positive. */
  private static final int SERIAL_BITS = 159;

  private static final int KEY_BITS = 256;

  private static final String SIGNATURE = "SHA256withECDSA";

  private final SecureRandom random = new SecureRandom();
  private final Instant now = Instant.now();
  private final KeyPairGenerator generator;
  private final KeyPair authority;
  private final X500Name authorityName;

  private GeneratedCertificates(String name) throws GeneralSecurityException {
    generator = KeyPairGenerator.getInstance("EC");
    generator.initialize(new ECGenParameterSpec("secp256r1"), random);
    authority = generator.generateKeyPair();
    authorityName = common("qnbd authority for " + name);
  }

  /**
   * Makes the files, the keys for their owner only.
   *
   * @param directory made if it is not there
   * @param names the server's host names and addresses, the best one first; at least one
   * @return the files
   * @throws FileAlreadyExistsException if one of them is there; then nothing is written
   */
  public static List<Path> write(Path directory, Collection<String> names) throws IOException {
    Map<String, String> contents;
    try {
      contents = new GeneratedCertificates(names.iterator().next()).contents(names);
    } catch (GeneralSecurityException | OperatorCreationException e) {
      throw new IOException("cannot make certificates: " + e.getMessage(), e);
    }
    Files.createDirectories(directory);
    for (String name : contents.keySet()) {
      Path file = directory.resolve(name);
      if (Files.exists(file, LinkOption.NOFOLLOW_LINKS)) {
        throw new FileAlreadyExistsException(file.toString());
      }
    }
    List<Path> written = new ArrayList<>();
    try {
      for (Map.Entry<String, String> content : contents.entrySet()) {
        Path file = directory.resolve(content.getKey());
        create(file, content.getValue());
        written.add(file);
      }
    } catch (IOException e) {
      for (Path file : written) {
        Files.delete(file); // half of them is of no use
      }
      throw e;
    }
    return written;
  }

  private static void create(Path file, String text) throws IOException {
    String permissions = text.contains("PRIVATE KEY") ? "rw-------" : "rw-r--r--";
    Files.createFile(
        file, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString(permissions)));
    Files.writeString(file, text, StandardCharsets.US_ASCII, StandardOpenOption.WRITE);
  }

  private Map<String, String> contents(Collection<String> names)
      throws GeneralSecurityException, OperatorCreationException, IOException {
    KeyPair server = generator.generateKeyPair();
    KeyPair client = generator.generateKeyPair();
    Map<String, String> contents = new LinkedHashMap<>();
    contents.put(TlsFiles.AUTHORITIES, certificate(authority()));
    contents.put(
        TlsFiles.SERVER_CERTIFICATE,
        certificate(
            member(common(names.iterator().next()), server, KeyPurposeId.id_kp_serverAuth)
                .addExtension(Extension.subjectAlternativeName, false, alternatives(names))));
    contents.put(TlsFiles.SERVER_KEY, key(server));
    contents.put(
        TlsFiles.CLIENT_CERTIFICATE,
        certificate(member(common("qnbd client"), client, KeyPurposeId.id_kp_clientAuth)));
    contents.put(TlsFiles.CLIENT_KEY, key(client));
    return contents;
  }

  private X509v3CertificateBuilder authority() throws GeneralSecurityException, IOException {
    return builder(authorityName, authority, AUTHORITY_VALID)
        .addExtension(Extension.basicConstraints, true, new BasicConstraints(0))
        .addExtension(
            Extension.keyUsage, true, new KeyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign));
  }

  private X509v3CertificateBuilder member(X500Name name, KeyPair keys, KeyPurposeId purpose)
      throws GeneralSecurityException, IOException {
    return builder(name, keys, VALID)
        .addExtension(Extension.basicConstraints, true, new BasicConstraints(false))
        .addExtension(Extension.keyUsage, true, new KeyUsage(KeyUsage.digitalSignature))
        .addExtension(Extension.extendedKeyUsage, false, new ExtendedKeyUsage(purpose))
        .addExtension(
            Extension.authorityKeyIdentifier,
            false,
            new JcaX509ExtensionUtils().createAuthorityKeyIdentifier(authority.getPublic()));
  }

  private X509v3CertificateBuilder builder(X500Name name, KeyPair keys, Duration valid)
      throws GeneralSecurityException, IOException {
    return new JcaX509v3CertificateBuilder(
            authorityName,
            new BigInteger(SERIAL_BITS, random).setBit(SERIAL_BITS - 1),
            Date.from(now.minus(VALID_BEFORE)),
            Date.from(now.plus(valid)),
            name,
            keys.getPublic())
        .addExtension(
            Extension.subjectKeyIdentifier,
            false,
            new JcaX509ExtensionUtils().createSubjectKeyIdentifier(keys.getPublic()));
  }

  private String certificate(X509v3CertificateBuilder builder)
      throws OperatorCreationException, IOException {
    return pem(
        "CERTIFICATE",
        builder
            .build(new JcaContentSignerBuilder(SIGNATURE).build(authority.getPrivate()))
            .getEncoded());
  }

  private static X500Name common(String name) {
    return new X500NameBuilder(BCStyle.INSTANCE).addRDN(BCStyle.CN, name).build();
  }

  private static GeneralNames alternatives(Collection<String> names) {
    return new GeneralNames(
        names.stream()
            .map(name ->
                new GeneralName(
                    isAddress(name) ? GeneralName.iPAddress : GeneralName.dNSName, name))
            .toArray(GeneralName[]::new));
  }

  private static boolean isAddress(String name) {
    try {
      InetAddress _ = InetAddress.ofLiteral(name);
      return true;
    } catch (IllegalArgumentException _) {
      return false;
    }
  }

  /** PKCS#8 with the public key, which the JDK leaves out and GnuTLS does not do without. */
  private static String key(KeyPair keys) throws IOException {
    SubjectPublicKeyInfo known = SubjectPublicKeyInfo.getInstance(keys.getPublic().getEncoded());
    ECPrivateKey secret =
        new ECPrivateKey(
            KEY_BITS,
            ((java.security.interfaces.ECPrivateKey) keys.getPrivate()).getS(),
            known.getPublicKeyData(),
            null);
    return pem("PRIVATE KEY", new PrivateKeyInfo(known.getAlgorithm(), secret).getEncoded());
  }

  private static String pem(String label, byte[] content) {
    return "-----BEGIN %s-----\n%s\n-----END %s-----\n"
        .formatted(
            label, Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(content), label);
  }
}
