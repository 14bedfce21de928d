package io.qnbd.server;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.tls.TlsFiles;
import io.qnbd.server.tls.TlsService;
import java.io.IOException;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options about TLS; picocli fills them in. */
final class TlsOptions {
  @Option(
      names = "--tls",
      paramLabel = "WHEN",
      defaultValue = "off",
      description = {
        "off: no TLS. optional: for clients that ask, and for exports that insist. required: no "
            + "client gets anything without. Needs certificates or keys. Default: ${DEFAULT-VALUE}."
      })
  private TlsMode mode = TlsMode.OFF;

  @Option(
      names = "--tls-certificates",
      paramLabel = "DIR",
      description = {
        "Directory with server-cert.pem, server-key.pem and ca-cert.pem, named as QEMU and libnbd "
            + "name them."
      })
  private @Nullable Path directory;

  @Option(
      names = "--tls-cert",
      paramLabel = "FILE",
      description = {
        "The server's certificate in PEM, followed by those of its issuers. This and the other "
            + "files are read again when they change."
      })
  private @Nullable Path certificates;

  @Option(
      names = "--tls-key",
      paramLabel = "FILE",
      description = "The private key of that certificate in PEM, not encrypted.")
  private @Nullable Path key;

  @Option(
      names = "--tls-ca",
      paramLabel = "FILE",
      description = {
        "Certificates, in PEM, of the authorities whose word about clients counts. Clients are then"
            + " asked for a certificate, and a bad one is refused."
      })
  private @Nullable Path authorities;

  @Option(
      names = "--tls-verify-client",
      description = "Refuse clients without a certificate of such an authority.")
  private boolean verifyClient;

  @Option(
      names = "--tls-psk",
      paramLabel = "FILE",
      description = {
        "Instead of certificates: keys that server and client share, as lines NAME:HEXKEY, which "
            + "GnuTLS's psktool writes."
      })
  private @Nullable Path psk;

  TlsMode mode() {
    return mode;
  }

  /**
   * The service that the options describe, or null with {@code --tls off}. The caller closes it.
   *
   * @throws UsageException if the options make no sense together
   * @throws IOException if a file cannot be read or makes no sense
   */
  @Nullable TlsService open() throws IOException {
    TlsFiles files = files();
    return files == null ? null : TlsService.open(files);
  }

  /** The files to use, or null with {@code --tls off}. */
  @Nullable TlsFiles files() {
    boolean x509 = directory != null || certificates != null || key != null;
    if (mode == TlsMode.OFF) {
      if (x509 || authorities != null || verifyClient || psk != null) {
        throw new UsageException("certificates and keys for TLS need --tls optional or required");
      }
      return null;
    }
    if (psk != null) {
      if (x509 || authorities != null || verifyClient) {
        throw new UsageException("--tls-psk and certificates exclude each other");
      }
      return new TlsFiles.Psk(psk);
    }
    return x509Files();
  }

  private TlsFiles.X509 x509Files() {
    if (directory != null) {
      if (certificates != null || key != null || authorities != null) {
        throw new UsageException(
            "--tls-certificates and --tls-cert, --tls-key, --tls-ca exclude each other");
      }
      return TlsFiles.X509.in(directory, verifyClient);
    }
    if (certificates == null || key == null) {
      throw new UsageException(
          "--tls needs --tls-certificates, --tls-cert with --tls-key, or --tls-psk");
    }
    if (verifyClient && authorities == null) {
      throw new UsageException("--tls-verify-client needs --tls-ca");
    }
    return new TlsFiles.X509(certificates, key, authorities, verifyClient);
  }
}
