package io.qnbd.server.tls;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.qnbd.server.tls.TlsTestServer.Event;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.HexFormat;
import java.util.stream.Stream;
import org.bouncycastle.tls.AlertDescription;
import org.bouncycastle.tls.CipherSuite;
import org.bouncycastle.tls.ProtocolVersion;
import org.bouncycastle.tls.TlsClientProtocol;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** TLS with pre-shared keys against Bouncy Castle's client. */
final class PskTest {
  private static final byte[] ALICE = "alice".getBytes(StandardCharsets.UTF_8);
  private static final byte[] KEY = key(1);

  /** The two ways to a session, each with a cipher that every client has. */
  enum Way {
    TLS_1_2,
    TLS_1_3;

    PskClient client(byte[] identity, byte[] key) {
      return this == TLS_1_2
          ? new PskClient(
              ProtocolVersion.TLSv12,
              identity,
              key,
              CipherSuite.TLS_DHE_PSK_WITH_AES_128_GCM_SHA256)
          : new PskClient(
              ProtocolVersion.TLSv13, identity, key, CipherSuite.TLS_AES_128_GCM_SHA256);
    }

    String protocol() {
      return this == TLS_1_2 ? "TLSv1.2" : "TLSv1.3";
    }
  }

  @TempDir private Path directory = Path.of("");

  private TlsFiles.Psk files = new TlsFiles.Psk(directory);

  @BeforeEach
  void writeKeys() throws IOException {
    files = new TlsFiles.Psk(directory.resolve("keys.psk"));
    Files.writeString(files.keys(), line("bob", key(2)) + line("alice", KEY));
  }

  private static byte[] key(int seed) {
    byte[] key = new byte[32];
    for (int i = 0; i < key.length; i++) {
      key[i] = (byte) (seed * 7 + i);
    }
    return key;
  }

  private static String line(String name, byte[] key) {
    return name + ":" + HexFormat.of().formatHex(key) + "\n";
  }

  private static TlsClientProtocol connect(Socket socket, PskClient client) throws IOException {
    TlsClientProtocol protocol =
        new TlsClientProtocol(socket.getInputStream(), socket.getOutputStream());
    protocol.connect(client);
    return protocol;
  }

  private static void echo(TlsClientProtocol client, String text) throws IOException {
    Transfer.echo(client.getInputStream(), client.getOutputStream(), text);
  }

  private static Stream<Arguments> ciphers() {
    return Stream.of(
        Arguments.of("1.3", CipherSuite.TLS_AES_128_GCM_SHA256),
        Arguments.of("1.3", CipherSuite.TLS_CHACHA20_POLY1305_SHA256),
        Arguments.of("1.2", CipherSuite.TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384),
        Arguments.of("1.2", CipherSuite.TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256),
        Arguments.of("1.2", CipherSuite.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256),
        Arguments.of("1.2", CipherSuite.TLS_DHE_PSK_WITH_AES_256_GCM_SHA384),
        Arguments.of("1.2", CipherSuite.TLS_DHE_PSK_WITH_AES_128_GCM_SHA256),
        Arguments.of("1.2", CipherSuite.TLS_DHE_PSK_WITH_CHACHA20_POLY1305_SHA256),
        Arguments.of("1.2", CipherSuite.TLS_PSK_WITH_AES_256_GCM_SHA384),
        Arguments.of("1.2", CipherSuite.TLS_PSK_WITH_AES_128_GCM_SHA256),
        Arguments.of("1.2", CipherSuite.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256));
  }

  @ParameterizedTest
  @MethodSource("ciphers")
  void servesWithEveryCipher(String version, int cipher) throws Exception {
    ProtocolVersion tls = version.equals("1.3") ? ProtocolVersion.TLSv13 : ProtocolVersion.TLSv12;
    try (TlsTestServer server = new TlsTestServer(files);
        Socket socket = server.connect()) {
      TlsClientProtocol client = connect(socket, new PskClient(tls, ALICE, KEY, cipher));
      assertEquals(
          new Event.Established(new TlsIdentity("alice", "TLSv" + version)), server.next());
      echo(client, "hello");
    }
  }

  @ParameterizedTest
  @EnumSource(Way.class)
  void refusesAnUnknownIdentityLikeAWrongKey(Way way) throws Exception {
    try (TlsTestServer server = new TlsTestServer(files)) {
      short wrongKey = refusal(server, way.client(ALICE, key(3)));
      short unknown = refusal(server, way.client("eve".getBytes(StandardCharsets.UTF_8), KEY));
      assertEquals(wrongKey, unknown);
      assertEquals(
          way == Way.TLS_1_2 ? AlertDescription.bad_record_mac : AlertDescription.decrypt_error,
          unknown);
    }
  }

  private static short refusal(TlsTestServer server, PskClient client) throws Exception {
    try (Socket socket = server.connect()) {
      assertThrows(IOException.class, () -> connect(socket, client));
      assertEquals(Event.Refused.class, server.next().getClass());
      server.next(Event.Gone.class);
      return client.alertReceived();
    }
  }

  @Test
  void refusesTls11() throws Exception {
    try (TlsTestServer server = new TlsTestServer(files)) {
      PskClient old =
          new PskClient(
              ProtocolVersion.TLSv11, ALICE, KEY, CipherSuite.TLS_PSK_WITH_AES_128_CBC_SHA);
      assertEquals(AlertDescription.protocol_version, refusal(server, old));
    }
  }

  @Test
  void refusesAClientThatHasNoKey() throws Exception {
    Path authority = directory.resolve("certificates");
    GeneratedCertificates.write(authority, java.util.List.of("localhost"));
    JdkClient jdk = JdkClient.believing(authority.resolve(TlsFiles.AUTHORITIES));
    try (TlsTestServer server = new TlsTestServer(files)) {
      for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
        try (javax.net.ssl.SSLSocket client = jdk.speaking(version).over(server.connect())) {
          assertThrows(javax.net.ssl.SSLHandshakeException.class, client::startHandshake);
          assertEquals(Event.Refused.class, server.next().getClass());
          server.next(Event.Gone.class);
        }
      }
    }
  }

  @Test
  void closesOnGarbage() throws Exception {
    try (TlsTestServer server = new TlsTestServer(files);
        Socket socket = server.connect()) {
      socket.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
      assertEquals(Event.Refused.class, server.next().getClass());
      assertEquals(new Event.Gone(), server.next());
      assertEquals(-1, socket.getInputStream().read()); // not even an alert
    }
  }

  @Test
  void tellsThatAClientLeftDuringTheHandshake() throws Exception {
    try (TlsTestServer server = new TlsTestServer(files)) {
      try (Socket socket = server.connect()) {
        socket.getOutputStream().write(0x16);
      }
      assertEquals(Event.Refused.class, server.next().getClass());
      assertEquals(new Event.Gone(), server.next());
    }
  }

  @ParameterizedTest
  @EnumSource(Way.class)
  void takesOneByteAtATime(Way way) throws Exception {
    try (TlsTestServer server = new TlsTestServer(files);
        ByteRelay relay = new ByteRelay(server.connect())) {
      TlsClientProtocol client = connect(relay.client(), way.client(ALICE, KEY));
      assertEquals(new Event.Established(new TlsIdentity("alice", way.protocol())), server.next());
      echo(client, "hello");
    }
  }

  @ParameterizedTest
  @EnumSource(Way.class)
  void movesLargeDataBothWays(Way way) throws Exception {
    try (TlsTestServer server = new TlsTestServer(files);
        Socket socket = server.connect()) {
      TlsClientProtocol client = connect(socket, way.client(ALICE, KEY));
      Transfer.receiveBlob(client.getInputStream(), client.getOutputStream());
      server.next(Event.BlobSent.class);
      Transfer.echoBlob(client.getInputStream(), client.getOutputStream());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void readsOnlyWhenAsked(boolean oneByteAtATime) throws Exception {
    try (TlsTestServer server = new TlsTestServer(files, true);
        Socket direct = server.connect();
        ByteRelay relay = new ByteRelay(server.connect())) {
      Socket socket = oneByteAtATime ? relay.client() : direct;
      TlsClientProtocol client = connect(socket, Way.TLS_1_3.client(ALICE, KEY));
      for (int i = 0; i < 20; i++) {
        echo(client, "message " + i);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Way.class)
  void saysAndHearsCloseNotify(Way way) throws Exception {
    try (TlsTestServer server = new TlsTestServer(files)) {
      try (Socket socket = server.connect()) {
        TlsClientProtocol client = connect(socket, way.client(ALICE, KEY));
        Transfer.expectOrderlyEnd(client.getInputStream(), client.getOutputStream());
        server.next(Event.Gone.class);
      }
      try (Socket socket = server.connect()) {
        connect(socket, way.client(ALICE, KEY)).close();
        assertEquals(new Event.Closed(true), server.next(Event.Closed.class));
      }
    }
  }

  @Test
  void tellsAConnectionThatWasCutOff() throws Exception {
    try (TlsTestServer server = new TlsTestServer(files)) {
      try (Socket socket = server.connect()) {
        echo(connect(socket, Way.TLS_1_3.client(ALICE, KEY)), "hello");
      }
      assertEquals(new Event.Closed(false), server.next(Event.Closed.class));
    }
  }

  @Test
  void failsTheWritesOfAClientThatLeavesWithoutReading() throws Exception {
    try (TlsTestServer server = new TlsTestServer(files)) {
      try (Socket socket = server.connect()) {
        TlsClientProtocol client = connect(socket, Way.TLS_1_3.client(ALICE, KEY));
        client.getOutputStream().write('B');
        client.getOutputStream().flush();
        assertEquals(TlsTestServer.blob(0), (byte) client.getInputStream().read());
      }
      server.next(Event.Failed.class);
      server.next(Event.Gone.class);
    }
  }

  @Test
  void usesAChangedFileForNewConnections() throws Exception {
    try (TlsTestServer server = new TlsTestServer(files);
        Socket first = server.connect()) {
      TlsClientProtocol before = connect(first, Way.TLS_1_3.client(ALICE, KEY));
      replaceKeys(line("alice", key(9)));
      server.service().look();
      server.service().look();
      try (Socket socket = server.connect()) {
        echo(connect(socket, Way.TLS_1_3.client(ALICE, key(9))), "hello");
      }
      echo(before, "still here");

      replaceKeys("nonsense\n");
      server.service().look();
      server.service().look();
      try (Socket socket = server.connect()) {
        echo(connect(socket, Way.TLS_1_3.client(ALICE, key(9))), "hello");
      }
    }
  }

  private void replaceKeys(String text) throws IOException {
    Path newer = directory.resolve("newer.psk");
    Files.writeString(newer, text);
    Files.move(newer, files.keys(), StandardCopyOption.REPLACE_EXISTING);
  }
}
