package io.qnbd.server.tls;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.server.tls.TestCertificates.Kind;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Files that make no sense are told by one sentence with their name; generated ones are right. */
final class FilesTest {
  private static final Duration A_DAY = Duration.ofDays(1);
  private static final String KEY = "00112233445566778899aabbccddeeff";

  @TempDir private Path directory = Path.of("");

  private TlsFiles.X509 good() throws Exception {
    return TestCertificates.selfSigned(directory, Kind.EC_PKCS8, A_DAY);
  }

  private static void expectRefused(TlsFiles files, Path culprit, String reason) {
    IOException refusal = assertThrows(IOException.class, () -> TlsService.open(files));
    String sentence = String.valueOf(refusal.getMessage());
    assertTrue(sentence.startsWith(culprit + ": "), sentence);
    assertTrue(sentence.contains(reason), sentence);
    assertFalse(sentence.contains("\n"), sentence);
  }

  @Test
  void takesGoodFiles() throws Exception {
    TlsService.open(good()).close();
  }

  @Test
  void refusesAMissingFile() throws Exception {
    TlsFiles.X509 files = good();
    Files.delete(files.key());
    NoSuchFileException refusal =
        assertThrows(NoSuchFileException.class, () -> TlsService.open(files));
    assertEquals(files.key().toString(), refusal.getFile());
  }

  @Test
  void refusesAFileWithoutCertificate() throws Exception {
    TlsFiles.X509 files = good();
    Files.writeString(files.certificates(), "nothing\n");
    expectRefused(files, files.certificates(), "no certificate");
  }

  @Test
  void refusesADamagedCertificate() throws Exception {
    TlsFiles.X509 files = good();
    Files.writeString(
        files.certificates(), TestCertificates.pem("CERTIFICATE", new byte[] {1, 2, 3}));
    expectRefused(files, files.certificates(), "damaged");
  }

  @Test
  void refusesACertificateThatIsCutOff() throws Exception {
    TlsFiles.X509 files = good();
    String text = Files.readString(files.certificates());
    Files.writeString(files.certificates(), text.substring(0, text.length() - 60));
    expectRefused(files, files.certificates(), "damaged");
  }

  @Test
  void refusesAFileWithoutKey() throws Exception {
    TlsFiles.X509 files = good();
    Files.copy(files.certificates(), files.key(), StandardCopyOption.REPLACE_EXISTING);
    expectRefused(files, files.key(), "no private key");
  }

  @Test
  void refusesAnEncryptedKey() throws Exception {
    TlsFiles.X509 files = good();
    Files.writeString(
        files.key(),
        """
        -----BEGIN RSA PRIVATE KEY-----
        Proc-Type: 4,ENCRYPTED
        DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF

        AAAAAAAAAAAAAAAAAAAAAA==
        -----END RSA PRIVATE KEY-----
        """);
    expectRefused(files, files.key(), "encrypted");
  }

  @Test
  void refusesTheKeyOfAnotherCertificate() throws Exception {
    TlsFiles.X509 files = good();
    Path other = Files.createDirectory(directory.resolve("other"));
    for (Kind kind : List.of(Kind.EC_SEC1, Kind.RSA_PKCS8)) {
      Files.copy(
          TestCertificates.selfSigned(other, kind, A_DAY).key(),
          files.key(),
          StandardCopyOption.REPLACE_EXISTING);
      expectRefused(files, files.key(), files.certificates().toString());
    }
  }

  @Test
  void refusesAnExpiredCertificate() throws Exception {
    TlsFiles.X509 files =
        TestCertificates.selfSigned(directory, Kind.EC_PKCS8, Duration.ofDays(-1));
    expectRefused(files, files.certificates(), "expired");
  }

  @Test
  void refusesAChainThatIsNone() throws Exception {
    TlsFiles.X509 files = good();
    Path other = Files.createDirectory(directory.resolve("other"));
    TlsFiles.X509 stranger = TestCertificates.selfSigned(other, Kind.RSA_PKCS8, A_DAY);
    Files.writeString(
        files.certificates(),
        Files.readString(files.certificates()) + Files.readString(stranger.certificates()));
    expectRefused(files, files.certificates(), "did not issue");
  }

  @Test
  void refusesAFileThatIsFarTooLarge() throws Exception {
    TlsFiles.X509 files = good();
    Files.write(files.certificates(), new byte[(1 << 20) + 1]);
    expectRefused(files, files.certificates(), "1048577 bytes");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "alice\n",
        ":" + KEY,
        "alice:xyz",
        "alice:" + KEY + "0",
        "alice:0011",
        "#zz:" + KEY,
        "alice:" + KEY + "\nalice:" + KEY,
      })
  void refusesKeysThatMakeNoSense(String text) throws Exception {
    Path file = directory.resolve("keys.psk");
    Files.writeString(file, text);
    expectRefused(new TlsFiles.Psk(file), file, text.isEmpty() ? "no key" : "line ");
  }

  @Test
  void neverTellsAKey() throws Exception {
    Path file = directory.resolve("keys.psk");
    Files.writeString(file, "alice:" + KEY + "x\n");
    IOException refusal =
        assertThrows(IOException.class, () -> TlsService.open(new TlsFiles.Psk(file)));
    assertFalse(String.valueOf(refusal.getMessage()).contains(KEY), refusal.getMessage());
  }

  @Test
  void readsKeysByName() throws Exception {
    Path file = directory.resolve("keys.psk");
    Files.writeString(
        file,
        "\nM\u00fcller:x:" + KEY + "\n#00ff:" + KEY.toUpperCase(java.util.Locale.ROOT) + "\r\n");
    PskKeys keys = PskKeys.read(file);
    byte[] key = HexFormat.of().parseHex(KEY);
    byte[] name = "M\u00fcller:x".getBytes(StandardCharsets.UTF_8);
    assertArrayEquals(key, keys.key(name));
    assertArrayEquals(key, keys.key(new byte[] {0, -1}));
    assertNull(keys.key(new byte[] {0}));
    assertEquals("M\u00fcller:x", PskKeys.name(name));
    assertEquals("#00ff", PskKeys.name(new byte[] {0, -1}));
  }

  @Test
  void generatesKeysForTheirOwnerOnly() throws Exception {
    List<Path> made = GeneratedCertificates.write(directory, List.of("localhost"));
    assertEquals(5, made.size());
    for (Path file : made) {
      assertEquals(
          file.toString().endsWith("-key.pem") ? "rw-------" : "rw-r--r--",
          PosixFilePermissions.toString(Files.getPosixFilePermissions(file)));
    }
    TlsService.open(TlsFiles.X509.in(directory, true)).close();
  }

  @Test
  void generatesNothingWhereAFileIs() throws Exception {
    Path key = Files.writeString(directory.resolve(TlsFiles.CLIENT_KEY), "precious");
    assertThrows(
        FileAlreadyExistsException.class,
        () -> GeneratedCertificates.write(directory, List.of("localhost")));
    assertEquals("precious", Files.readString(key));
    try (Stream<Path> files = Files.list(directory)) {
      assertEquals(List.of(key), files.toList());
    }
  }
}
