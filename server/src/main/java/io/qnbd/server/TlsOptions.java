package io.qnbd.server;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.tls.GeneratedCertificates;
import io.qnbd.server.tls.TlsFiles;
import io.qnbd.server.tls.TlsService;
import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** The options about TLS; picocli fills them in. */
final class TlsOptions {
  /** What a listener on all addresses is called; no client calls it so. */
  private static final Set<String> EVERYWHERE = Set.of("", "*", "0.0.0.0", "::");

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

  @Option(
      names = "--tls-generate",
      paramLabel = "DIR",
      description = {
        "Serve nothing: make an authority and certificates of it for this server and for one client"
            + " in DIR, say how to use them, and end. A file that is there is never touched."
      })
  private @Nullable Path generate;

  TlsMode mode() {
    return mode;
  }

  /** Whether nothing is to be served, but {@link #generate} to be called. */
  boolean generates() {
    return generate != null;
  }

  /**
   * Makes the certificates and tells the user about them.
   *
   * @param listen where the server will listen: what its clients may call it
   * @throws IOException if a file is there, or cannot be made
   */
  void generate(Terminal terminal, List<ListenAddress.Tcp> listen) throws IOException {
    Path target = Objects.requireNonNull(generate, "--tls-generate was not given");
    Set<String> names = names(listen);
    GeneratedCertificates.write(target, names);
    String shown = Printable.text(target.toString());
    terminal
        .out()
        .print(
            """
            Made in %1$s, valid for 825 days:
              ca-cert.pem                      whom to believe; its key is not kept
              server-cert.pem, server-key.pem  this server as %2$s
              client-cert.pem, client-key.pem  a client, subject CN=qnbd client

            Serve only those who have the client's certificate:
              qnbd serve --tls required --tls-certificates %1$s --tls-verify-client disk.qcow2

            Connect, with the ca-cert.pem and client-*.pem of %1$s:
              nbdinfo 'nbds://localhost/?tls-certificates=%1$s'
              qemu-img info --object tls-creds-x509,id=tls,endpoint=client,dir=%1$s \\
                --image-opts driver=nbd,host=localhost,port=10809,tls-creds=tls
              nbd-client -A %1$s/ca-cert.pem -F %1$s/client-cert.pem -K %1$s/client-key.pem \\
                -H localhost localhost /dev/nbd0
            """
                .formatted(shown, String.join(", ", names)));
  }

  /** The best name first. */
  private static Set<String> names(List<ListenAddress.Tcp> listen) {
    Set<String> names = new LinkedHashSet<>(List.of("localhost", "127.0.0.1", "::1"));
    try {
      names.add(InetAddress.getLocalHost().getHostName());
    } catch (UnknownHostException _) {
      // This machine does not know its own name; nobody else will use it.
    }
    for (ListenAddress.Tcp address : listen) {
      if (!EVERYWHERE.contains(address.host())) {
        names.add(address.host());
      }
    }
    return names;
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
