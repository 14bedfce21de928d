package io.qnbd.server.tls;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The files that a server proves itself with, and judges its clients by. */
public sealed interface TlsFiles {
  /**
   * Certificates in PEM.
   *
   * @param certificates the server's certificate, then those that lead to its authority
   * @param key the private key of the first certificate, not encrypted: PKCS#8, PKCS#1 or SEC1
   * @param authorities whom to believe about clients; null: clients are not asked who they are
   * @param verifyClient whether a client must show a certificate; needs {@code authorities}
   */
  record X509(Path certificates, Path key, @Nullable Path authorities, boolean verifyClient)
      implements TlsFiles {
    public X509 {
      if (verifyClient && authorities == null) {
        throw new IllegalArgumentException("clients cannot be verified without authorities");
      }
    }

    /** The names that QEMU, libvirt and libnbd use; the authorities are optional without verify. */
    public static X509 in(Path directory, boolean verifyClient) {
      Path authorities = directory.resolve(AUTHORITIES);
      return new X509(
          directory.resolve(SERVER_CERTIFICATE),
          directory.resolve(SERVER_KEY),
          verifyClient || Files.exists(authorities) ? authorities : null,
          verifyClient);
    }

    @Override
    public List<Path> all() {
      List<Path> all = new ArrayList<>(List.of(certificates, key));
      if (authorities != null) {
        all.add(authorities);
      }
      return all;
    }
  }

  /**
   * Keys that both sides know (pre-shared keys).
   *
   * @param keys lines of {@code identity:key in hexadecimal}, as GnuTLS's psktool writes them
   */
  record Psk(Path keys) implements TlsFiles {
    @Override
    public List<Path> all() {
      return List.of(keys);
    }
  }

  /** File names of the directory layout that QEMU, libvirt and libnbd share. */
  String AUTHORITIES = "ca-cert.pem";

  String SERVER_CERTIFICATE = "server-cert.pem";
  String SERVER_KEY = "server-key.pem";
  String CLIENT_CERTIFICATE = "client-cert.pem";
  String CLIENT_KEY = "client-key.pem";

  /** All files that are read. */
  List<Path> all();
}
