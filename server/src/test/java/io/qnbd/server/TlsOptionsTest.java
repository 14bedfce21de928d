package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.config.Choice;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.tls.TlsFiles;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/** Which files the TLS options choose, and what they refuse. */
final class TlsOptionsTest {
  @TempDir private Path directory = Path.of("");

  @Command
  private static final class Holder {
    @Mixin private TlsOptions tls = new TlsOptions();
  }

  private static TlsOptions parse(String line) {
    Holder holder = new Holder();
    new CommandLine(holder)
        .registerConverter(TlsMode.class, Choice::tlsMode)
        .parseArgs(line.isEmpty() ? new String[0] : line.split(" ", -1));
    return holder.tls;
  }

  @Test
  void isOffByDefault() {
    TlsOptions options = parse("");
    assertEquals(TlsMode.OFF, options.mode());
    assertNull(options.files());
  }

  @Test
  void takesSingleFiles() {
    TlsOptions options = parse("--tls optional --tls-cert c --tls-key k --tls-ca a");
    assertEquals(TlsMode.OPTIONAL, options.mode());
    assertEquals(
        new TlsFiles.X509(Path.of("c"), Path.of("k"), Path.of("a"), false), options.files());
  }

  @Test
  void takesADirectoryWithAuthorities() throws IOException {
    Files.createFile(directory.resolve("ca-cert.pem"));
    assertEquals(
        new TlsFiles.X509(
            directory.resolve("server-cert.pem"),
            directory.resolve("server-key.pem"),
            directory.resolve("ca-cert.pem"),
            true),
        parse("--tls required --tls-verify-client --tls-certificates " + directory).files());
  }

  @Test
  void takesADirectoryWithoutAuthorities() {
    assertEquals(
        new TlsFiles.X509(
            directory.resolve("server-cert.pem"), directory.resolve("server-key.pem"), null, false),
        parse("--tls required --tls-certificates " + directory).files());
  }

  @Test
  void takesKeys() {
    assertEquals(
        new TlsFiles.Psk(Path.of("keys.psk")), parse("--tls required --tls-psk keys.psk").files());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "--tls required",
        "--tls-cert c --tls-key k",
        "--tls-psk p",
        "--tls-verify-client",
        "--tls required --tls-cert c",
        "--tls required --tls-key k",
        "--tls required --tls-cert c --tls-key k --tls-verify-client",
        "--tls required --tls-cert c --tls-key k --tls-certificates d",
        "--tls required --tls-psk p --tls-cert c --tls-key k",
        "--tls required --tls-psk p --tls-verify-client",
      })
  void refuses(String line) {
    assertThrows(UsageException.class, parse(line)::files);
  }

  @Test
  void generatesOnceAndSaysHowToUseIt() throws IOException {
    StringWriter out = new StringWriter();
    PrintWriter printer = new PrintWriter(out);
    Path made = directory.resolve("pki");
    TlsOptions options = parse("--tls-generate " + made);
    assertTrue(options.generates());
    List<ListenAddress.Tcp> listen =
        List.of(new ListenAddress.Tcp("0.0.0.0", 1), new ListenAddress.Tcp("disks.example", 1));
    options.generate(new Terminal(printer, printer), listen);
    printer.flush();
    assertTrue(out.toString().contains("127.0.0.1, ::1"), out.toString());
    assertTrue(out.toString().contains("disks.example"), out.toString());
    assertTrue(out.toString().contains("--tls-certificates " + made + " "), out.toString());
    assertThrows(
        FileAlreadyExistsException.class,
        () -> options.generate(new Terminal(printer, printer), listen));
  }
}
