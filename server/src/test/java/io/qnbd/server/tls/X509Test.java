package io.qnbd.server.tls;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.qnbd.server.tls.TestCertificates.Kind;
import io.qnbd.server.tls.TlsTestServer.Event;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;
import javax.net.ssl.SSLHandshakeException;
import javax.net.ssl.SSLSocket;
import org.bouncycastle.tls.AlertDescription;
import org.bouncycastle.tls.CipherSuite;
import org.bouncycastle.tls.ProtocolVersion;
import org.bouncycastle.tls.TlsClientProtocol;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** TLS with certificates against the JDK's client. */
final class X509Test {
  private static final Duration A_DAY = Duration.ofDays(1);

  @TempDir private Path directory = Path.of("");

  private Path generated(String name) throws IOException {
    Path made = directory.resolve(name);
    GeneratedCertificates.write(made, List.of("localhost", "127.0.0.1"));
    return made;
  }

  private static Path authority(Path generated) {
    return generated.resolve(TlsFiles.AUTHORITIES);
  }

  private static Stream<Arguments> kindsAndVersions() {
    return Stream.of(Kind.values())
        .flatMap(
            kind -> Stream.of("TLSv1.2", "TLSv1.3").map(version -> Arguments.of(kind, version)));
  }

  @ParameterizedTest
  @MethodSource("kindsAndVersions")
  void servesWithEveryKindOfKey(Kind kind, String version) throws Exception {
    TlsFiles.X509 files = TestCertificates.selfSigned(directory, kind, A_DAY);
    try (TlsTestServer server = new TlsTestServer(files);
        SSLSocket client =
            JdkClient.believing(files.certificates()).speaking(version).over(server.connect())) {
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello");
      assertEquals(new Event.Established(new TlsIdentity("", version)), server.next());
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "again");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"TLSv1.2", "TLSv1.3"})
  void tellsWhoTheClientIs(String version) throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, true));
        SSLSocket client =
            JdkClient.believing(authority(files), files).speaking(version).over(server.connect())) {
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello");
      assertEquals(
          new Event.Established(new TlsIdentity("CN=qnbd client", version)), server.next());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"localhost", "127.0.0.1"})
  void generatedCertificatesHoldForTheirNames(String name) throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, false));
        SSLSocket client = JdkClient.believing(authority(files)).over(server.connect(), name)) {
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello");
    }
  }

  @Test
  void generatedCertificatesHoldForNoOtherName() throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, false));
        SSLSocket client =
            JdkClient.believing(authority(files)).over(server.connect(), "other.example")) {
      assertThrows(SSLHandshakeException.class, client::startHandshake);
    }
  }

  @Test
  void takesAClientWithoutCertificate() throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, false));
        SSLSocket client = JdkClient.believing(authority(files)).over(server.connect())) {
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello");
      assertEquals(new Event.Established(new TlsIdentity("", "TLSv1.3")), server.next());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"TLSv1.2", "TLSv1.3"})
  void refusesAClientWithoutCertificateIfItVerifies(String version) throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, true));
        SSLSocket client =
            JdkClient.believing(authority(files)).speaking(version).over(server.connect())) {
      expectRefused(server, client);
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void refusesACertificateOfAnotherAuthority(boolean verify) throws Exception {
    Path files = generated("files");
    Path others = generated("others");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, verify));
        SSLSocket client = JdkClient.believing(authority(files), others).over(server.connect())) {
      expectRefused(server, client);
    }
  }

  @Test
  void refusesAServersCertificateFromAClient() throws Exception {
    Path files = generated("files");
    for (String[] names :
        new String[][] {
          {TlsFiles.SERVER_CERTIFICATE, TlsFiles.CLIENT_CERTIFICATE},
          {TlsFiles.SERVER_KEY, TlsFiles.CLIENT_KEY}
        }) {
      Files.copy(
          files.resolve(names[0]), files.resolve(names[1]), StandardCopyOption.REPLACE_EXISTING);
    }
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, true));
        SSLSocket client = JdkClient.believing(authority(files), files).over(server.connect())) {
      expectRefused(server, client);
    }
  }

  @Test
  void asksNobodyWithoutAuthorities() throws Exception {
    Path files = generated("files");
    TlsFiles.X509 noAuthorities =
        new TlsFiles.X509(
            files.resolve(TlsFiles.SERVER_CERTIFICATE),
            files.resolve(TlsFiles.SERVER_KEY),
            null,
            false);
    try (TlsTestServer server = new TlsTestServer(noAuthorities);
        SSLSocket client = JdkClient.believing(authority(files), files).over(server.connect())) {
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello");
      assertEquals(new Event.Established(new TlsIdentity("", "TLSv1.3")), server.next());
    }
  }

  private static void expectRefused(TlsTestServer server, SSLSocket client)
      throws InterruptedException {
    // With TLS 1.3 the client's handshake may be over before the server has looked at it.
    assertThrows(
        IOException.class,
        () -> Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello"));
    assertEquals(Event.Refused.class, server.next().getClass());
    server.next(Event.Gone.class);
  }

  @Test
  void refusesTls11() throws Exception {
    PskClient old =
        new PskClient(
            ProtocolVersion.TLSv11,
            new byte[] {1},
            new byte[16],
            CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA);
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(generated("files"), false));
        Socket socket = server.connect()) {
      TlsClientProtocol protocol =
          new TlsClientProtocol(socket.getInputStream(), socket.getOutputStream());
      assertThrows(IOException.class, () -> protocol.connect(old));
      assertEquals(AlertDescription.protocol_version, old.alertReceived());
      assertEquals(Event.Refused.class, server.next().getClass());
      server.next(Event.Gone.class);
    }
  }

  @Test
  void closesOnGarbage() throws Exception {
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(generated("files"), false));
        Socket socket = server.connect()) {
      socket.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
      assertEquals(Event.Refused.class, server.next().getClass());
      server.next(Event.Gone.class);
    }
  }

  @Test
  void takesOneByteAtATime() throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, true));
        ByteRelay relay = new ByteRelay(server.connect());
        SSLSocket client = JdkClient.believing(authority(files), files).over(relay.client())) {
      Transfer.echo(client.getInputStream(), client.getOutputStream(), "hello");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"TLSv1.2", "TLSv1.3"})
  void movesLargeDataBothWays(String version) throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, false));
        SSLSocket client =
            JdkClient.believing(authority(files)).speaking(version).over(server.connect())) {
      Transfer.receiveBlob(client.getInputStream(), client.getOutputStream());
      server.next(Event.BlobSent.class);
      Transfer.echoBlob(client.getInputStream(), client.getOutputStream());
    }
  }

  @Test
  void saysAndHearsCloseNotify() throws Exception {
    Path files = generated("files");
    try (TlsTestServer server = new TlsTestServer(TlsFiles.X509.in(files, false))) {
      try (SSLSocket client = JdkClient.believing(authority(files)).over(server.connect())) {
        Transfer.expectOrderlyEnd(client.getInputStream(), client.getOutputStream());
        server.next(Event.Gone.class);
      }
      try (SSLSocket client = JdkClient.believing(authority(files)).over(server.connect())) {
        client.startHandshake();
      }
      assertEquals(new Event.Closed(true), server.next(Event.Closed.class));
    }
  }

  @Test
  void usesChangedFilesForNewConnectionsOnly() throws Exception {
    TlsFiles.X509 files = TestCertificates.selfSigned(directory, Kind.EC_PKCS8, A_DAY);
    JdkClient old = JdkClient.believing(files.certificates());
    try (TlsTestServer server = new TlsTestServer(files);
        SSLSocket before = old.over(server.connect())) {
      Transfer.echo(before.getInputStream(), before.getOutputStream(), "hello");

      Path renewed = Files.createDirectory(directory.resolve("renewed"));
      replace(files, TestCertificates.selfSigned(renewed, Kind.RSA_PKCS1, A_DAY));
      lookUntilSettled(server);

      try (SSLSocket after = JdkClient.believing(files.certificates()).over(server.connect())) {
        Transfer.echo(after.getInputStream(), after.getOutputStream(), "hello");
        assertNotEquals(subject(before), subject(after));
      }
      Transfer.echo(before.getInputStream(), before.getOutputStream(), "still here");
    }
  }

  @Test
  void keepsTheOldFilesWhileTheNewOnesAreBroken() throws Exception {
    TlsFiles.X509 files = TestCertificates.selfSigned(directory, Kind.EC_PKCS8, A_DAY);
    JdkClient client = JdkClient.believing(files.certificates());
    Path renewed = Files.createDirectory(directory.resolve("renewed"));
    TlsFiles.X509 newer = TestCertificates.selfSigned(renewed, Kind.EC_SEC1, A_DAY);
    try (TlsTestServer server = new TlsTestServer(files)) {
      Files.move(newer.certificates(), files.certificates(), StandardCopyOption.REPLACE_EXISTING);
      lookUntilSettled(server); // the key is still the old one
      try (SSLSocket socket = client.over(server.connect())) {
        Transfer.echo(socket.getInputStream(), socket.getOutputStream(), "hello");
      }

      Files.move(newer.key(), files.key(), StandardCopyOption.REPLACE_EXISTING);
      lookUntilSettled(server);
      try (SSLSocket socket = JdkClient.believing(files.certificates()).over(server.connect())) {
        Transfer.echo(socket.getInputStream(), socket.getOutputStream(), "hello");
      }
    }
  }

  /** Whatever the service's own thread does at the same time: it has read the files after this. */
  private static void lookUntilSettled(TlsTestServer server) {
    server.service().look();
    server.service().look();
  }

  private static void replace(TlsFiles.X509 old, TlsFiles.X509 newer) throws IOException {
    Files.move(newer.certificates(), old.certificates(), StandardCopyOption.REPLACE_EXISTING);
    Files.move(newer.key(), old.key(), StandardCopyOption.REPLACE_EXISTING);
  }

  private static String subject(SSLSocket client) throws IOException {
    X509Certificate shown = (X509Certificate) client.getSession().getPeerCertificates()[0];
    return shown.getSubjectX500Principal().getName();
  }
}
