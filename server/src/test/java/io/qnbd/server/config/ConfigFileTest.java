package io.qnbd.server.config;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.OverlapCheck;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.export.ExportSettings;
import io.qnbd.server.export.RateLimits;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import io.qnbd.server.tls.TlsFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class ConfigFileTest {
  @TempDir private Path directory = Path.of("");

  private ServerConfig read(String text) throws IOException {
    return ConfigFile.read(Files.writeString(directory.resolve("q.toml"), text));
  }

  /** What is said of a file that cannot be used, without its directory. */
  private String refusal(String text) {
    String message =
        String.valueOf(assertThrows(ConfigException.class, () -> read(text)).getMessage());
    assertTrue(message.startsWith(directory + "/"), message);
    return message.substring(directory.toString().length() + 1);
  }

  private static String example() throws IOException {
    String page = Files.readString(Path.of("..", "docs", "configuration.md"));
    int start = page.indexOf("```toml\n") + "```toml\n".length();
    return page.substring(start, page.indexOf("```", start));
  }

  @Test
  void theExampleOfTheManualSaysWhatItsCommentsSay() throws IOException {
    ServerConfig config = read(example());
    assertEquals(
        List.of(
            new ListenAddress.Tcp("127.0.0.1", 10809),
            new ListenAddress.Tcp("::1", 10809),
            new ListenAddress.Unix(Path.of("/run/qnbd/nbd.sock"), 0660)),
        config.addresses());
    assertEquals(Path.of("/run/qnbd/control.sock"), config.control());
    ServerLimits limits = config.limits();
    assertEquals(8, limits.workerThreads());
    assertEquals(500, limits.connectionsMax());
    assertEquals(64, limits.requestsPerConnection());
    assertEquals(64 << 20, limits.bytesPerConnection());
    assertEquals(512 << 20, limits.bytesTotal());
    assertEquals(Duration.ofSeconds(10), limits.handshakeDeadline());
    assertEquals(Duration.ofSeconds(30), limits.stallDeadline());
    assertEquals(TlsMode.OPTIONAL, config.tls());
    assertEquals(TlsFiles.X509.in(directory.resolve("tls"), true), config.tlsFiles());
    assertEquals(4, config.exports().size());
    assertEquals(
        new ExportPlan(
            new ExportSettings(
                "root",
                "the root disk of the web server",
                false,
                Set.of(),
                8,
                4,
                new RateLimits(200 << 20, 20_000)),
            directory.resolve("images/root.qcow2"),
            OpenOptions.DEFAULT.withFormat(ImageFormat.QCOW2).withL2CacheBytes(64 << 20),
            false,
            null,
            true),
        config.exports().getFirst());
    ExportPlan secret = config.exports().get(1);
    assertEquals(10L << 30, secret.createBytes());
    assertEquals(directory.resolve("secret.key"), secret.passphraseFile());
    assertTrue(secret.settings().tlsRequired());
    assertEquals(Set.of("CN=alice,O=lab", "CN=bob,O=lab"), secret.settings().allowedSubjects());
    ExportPlan base = config.exports().get(2);
    assertEquals(Path.of("/srv/images/base.qcow2"), base.path());
    assertTrue(base.open().readOnly());
    assertEquals("monday", base.open().snapshot());
    assertEquals(Path.of("/srv/data/base.raw"), base.open().dataFile());
    assertTrue(config.exports().get(3).temporary());
  }

  @Test
  void theExampleHasEveryKey() throws IOException {
    // A line with a key that does not exist is refused with all those that do.
    String limits = refusal("[limits]\nzzzzzzzzzzzz = 1");
    String tls = refusal("[tls]\nzzzzzzzzzzzz = 1");
    String export = refusal("[[export]]\nzzzzzzzzzzzz = 1");
    String top = refusal("zzzzzzzzzzzz = 1");
    String example = example();
    for (String known : List.of(top, limits, tls, export)) {
      String keys = known.substring(known.indexOf("known are ") + "known are ".length());
      for (String key : keys.split(", ", -1)) {
        assertTrue(example.contains(key + " =") || example.contains("[" + key + "]"), "no " + key);
      }
    }
  }

  @Test
  void anEmptyFileSaysNothing() throws IOException {
    ServerConfig config = read("# nothing\n");
    assertEquals(List.of(), config.exports());
    assertEquals(List.of(), config.addresses());
    assertNull(config.control());
    assertEquals(ServerLimits.DEFAULT, config.limits());
    assertEquals(TlsMode.OFF, config.tls());
    assertEquals(List.of(), read("export = []").exports());
  }

  @Test
  void exportsMayBeNamedTablesInTheOrderOfTheFile() throws IOException {
    ServerConfig config =
        read(
            """
            [export.z]
            path = "a.qcow2"
            cache = "directsync"
            [export."b c"]
            path = "/b.raw"
            format = "raw"
            backing-policy = "any"
            overlap-check = "all"
            [export.a]
            path = "c"
            """);
    assertEquals(
        List.of("z", "b c", "a"), config.exports().stream().map(ExportPlan::name).toList());
    assertEquals(CacheMode.DIRECTSYNC, config.exports().get(0).open().cacheMode());
    assertEquals(BackingPolicy.ANY, config.exports().get(1).open().backingPolicy());
    assertEquals(OverlapCheck.ALL, config.exports().get(1).open().overlapCheck());
    assertEquals(ImageFormat.RAW, config.exports().get(1).open().format());
  }

  @Test
  void withoutANameAnExportHasItsFiles() throws IOException {
    assertEquals("d.qcow2", read("[[export]]\npath = 'x/d.qcow2'").exports().getFirst().name());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          listen = 7                        | q.toml:1: listen must be a string or a list of strings
          listen = ['a:b']                  | q.toml:1: listen cannot be used: the port in 'a:b' is not a number from 0 to 65535
          lisen = 'a:1'                     | q.toml:1: lisen is not known here; did you mean 'listen'?
          workers = 0                       | q.toml:1: workers is 0, expected 1 to 1024
          workers = '3'                     | q.toml:1: workers must be a whole number
          workers = 1.5                     | q.toml:1: workers must be a whole number
          unix-mode = '0999'                | q.toml:1: unix-mode cannot be used: '0999' is no mode such as "0660"
          control = ''                      | q.toml:1: control names no file
          limits = 3                        | q.toml:1: limits must be a table: write [limits]
          export = 3                        | q.toml:1: export must be tables: write [[export]] before each
          export = [3]                      | q.toml:1: export must be tables: write [[export]] before each
          export.a = 3                      | q.toml:1: export.a must be a table: write [export.NAME], or [[export]] with a name in it
          [limits]; max-conections = 1      | q.toml:2: limits.max-conections is not known here; did you mean 'max-connections'?
          [limits]; bytes-total = '10X'     | q.toml:2: limits.bytes-total cannot be used: unknown unit in the size '10X' (known: K, M, G, T, P, E, powers of 1024)
          [tls]; mode = 'sometimes'         | q.toml:2: tls.mode cannot be used: 'sometimes' is none of off, optional, required
          [tls]; mode = 'required'          | q.toml:2: tls.mode needs 'certificates', 'cert' with 'key', or 'psk'
          [[export]]; name = 'a'            | q.toml:1: this export has no 'path', the image's file
          [[export]]; path = 'a'; cahce = 1 | q.toml:3: cahce is not known here; did you mean 'cache'?
          [[export]]; path = 'a'; read-only = 'yes' | q.toml:3: read-only must be true or false
          [[export]]; path = 'a'; create = true | q.toml:3: create must be a size: a number of bytes, or a string such as "10G"
          [[export]]; path = 'a'; l2-cache = 5 | q.toml:3: l2-cache is 5, expected at least 65536
          [[export]]; path = 'a'; ref-batch = -1 | q.toml:3: ref-batch is -1, expected 0 to 1048576
          [[export]]; path = '/'            | q.toml:2: path is a directory, not an image: /
          [[export]]; path = 'a'; temporary = true; read-only = true | q.toml:3: temporary is for writing: it and 'read-only' exclude one another
          [export.a]; name = 'b'            | q.toml:2: name is for [[export]]: the table [export.a] has one
          a = 1; a = 2                      | q.toml:2: a previously defined at line 1, column 1
          """)
  void whatCannotBeUsedIsNamedWithItsLine(String lines, String expected) {
    assertEquals(expected, refusal(lines.replace("; ", "\n")));
  }

  @Test
  void twoExportsCannotShareANameOrBeTheDefault() {
    assertEquals(
        "q.toml:3: another export is named 'a' already (q.toml:1): give one another name",
        refusal("[[export]]\npath = 'a'\n[[export]]\nname = 'a'\npath = 'b'")
            .replace(directory + "/", ""));
    assertEquals(
        "q.toml:4: another export is the default already (q.toml:1)",
        refusal("[[export]]\npath = 'a'\ndefault = true\n[[export]]\npath = 'b'\ndefault = true")
            .replace(directory + "/", ""));
  }

  @Test
  void namesAreWhatTheProtocolCanCarry() {
    assertTrue(
        refusal("[[export]]\npath = 'a'\nname = '" + "x".repeat(4097) + "'")
            .contains("has 4097 bytes; NBD permits 4096"));
    assertTrue(
        refusal("[[export]]\npath = 'a'\nname = \"\\u0007\"").contains("control characters"));
    assertTrue(refusal("[export.\"\\u0007\"]\npath = 'a'").contains("control characters"));
  }

  @Test
  void theFileAndItsExportsHaveLimits() {
    assertTrue(refusal("#".repeat(5 << 20)).contains("more than"));
    StringBuilder many = new StringBuilder();
    for (int i = 0; i <= WireLimits.EXPORTS_MAX; i++) {
      many.append("[[export]]\npath = 'e").append(i).append("'\n");
    }
    assertTrue(refusal(many.toString()).contains("has 1025 exports, the most is 1024"));
  }

  @Test
  void tellsWhichServerKeysChanged() throws IOException {
    ServerConfig old = read("listen = ['a:1']\nworkers = 2\n[tls]\nmode = 'off'\n");
    ServerConfig now =
        read("listen = ['a:1', 'b:2']\n[limits]\nstall-seconds = 5\n[tls]\nmode = 'off'\n");
    assertEquals(
        List.of("limits.stall-seconds", "listen", "workers"),
        List.copyOf(old.serverKeysChangedTo(now)));
    assertEquals(
        Set.of(),
        old.serverKeysChangedTo(
            read("workers = 2\nlisten = ['a:1']\ntls.mode = 'off'\n[[export]]\npath = 'x'\n")));
  }

  @Test
  void keysOfAControlRequestAreCalledByTheirNames() throws IOException {
    ConfigException failure =
        assertThrows(
            ConfigException.class,
            () -> ExportKeys.read(Map.of("path", "a", "cache", "what"), key -> key, Path.of("")));
    assertTrue(String.valueOf(failure.getMessage()).startsWith("cache cannot be used"));
    ExportPlan plan =
        ExportKeys.read(
            Map.of("path", "a", "snapshot", "s", "temporary", true), key -> key, Path.of("/d"));
    assertEquals(Path.of("/d/a"), plan.path());
    assertTrue(plan.temporary());
    assertFalse(plan.chosen());
  }
}
