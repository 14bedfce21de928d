package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The clients that people have, all of them with GnuTLS, against the server's TLS. */
@Timeout(300)
final class TlsIT {
  private static final int NOISE_BYTES = 20 << 20;

  @Test
  void generatedFilesServeEveryClient() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path tls = generate(images);
      Path raw = images.rawOfNoise("noise.raw", NOISE_BYTES, 1);
      Path image = images.qcow2From("disk.qcow2", raw);
      try (QnbdProcess qnbd = serve(tls, "required", "--tls-verify-client", image.toString())) {
        String uri = "nbds://localhost:%d/?tls-certificates=%s".formatted(qnbd.port(), tls);
        assertTrue(Shell.check("nbdinfo", uri).contains("protocol: newstyle-fixed with TLS"));

        Path copy = images.path("copy.raw");
        Shell.check("nbdcopy", "--connections=4", "--requests=16", uri, copy.toString());
        assertEquals(-1, Files.mismatch(raw, copy));

        Path back = images.rawOfNoise("other.raw", NOISE_BYTES, 2);
        Shell.check("nbdcopy", "--connections=4", "--flush", back.toString(), uri);
        compareByQemu(tls, qnbd, image);
        throughNbdkit(tls, qnbd);
        qnbd.stop();
      }
    }
  }

  @Test
  void clientsWithoutTlsAreToldSo() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path tls = generate(images);
      Path image = images.qcow2("disk.qcow2", "1M");
      try (QnbdProcess qnbd = serve(tls, "required", image.toString())) {
        Shell.Result refused = Shell.run("nbdinfo", "nbd://localhost:" + qnbd.port());
        assertTrue(refused.exit() != 0, refused.toString());
        qnbd.stop();
      }
    }
  }

  @Test
  void optionalServesBothKinds() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path tls = generate(images);
      Path image = images.qcow2("disk.qcow2", "1M");
      try (QnbdProcess qnbd = serve(tls, "optional", image.toString())) {
        String clear = Shell.check("nbdinfo", "nbd://localhost:" + qnbd.port());
        assertTrue(clear.contains("without TLS"), clear);
        String secured =
            Shell.check(
                "nbdinfo", "nbds://localhost:%d/?tls-certificates=%s".formatted(qnbd.port(), tls));
        assertTrue(secured.contains("with TLS"), secured);
        qnbd.stop();
      }
    }
  }

  @Test
  void clientWithoutCertificateIsRefusedWhereOneIsDemanded() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path tls = generate(images);
      Path anonymous = Files.createDirectory(images.path("anonymous"));
      Files.copy(tls.resolve("ca-cert.pem"), anonymous.resolve("ca-cert.pem"));
      Path image = images.qcow2("disk.qcow2", "1M");
      try (QnbdProcess qnbd = serve(tls, "required", "--tls-verify-client", image.toString())) {
        Shell.Result refused =
            Shell.run(
                "nbdinfo",
                "nbds://localhost:%d/?tls-certificates=%s".formatted(qnbd.port(), anonymous));
        assertTrue(refused.exit() != 0, refused.toString());
        qnbd.stop();
      }
    }
  }

  @Test
  void sharedKeysOfPsktoolWork() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path keys = images.path("keys.psk");
      Files.writeString(
          keys, "alice:6a3df6c2bb4b2a6b5fae1f1c1e9f8f8e6a3df6c2bb4b2a6b5fae1f1c1e9f8f8e\n");
      Path wrong = images.path("wrong.psk");
      Files.writeString(
          wrong, "alice:0000000000000000000000000000000000000000000000000000000000000000\n");
      Path raw = images.rawOfNoise("noise.raw", NOISE_BYTES, 1);
      Path image = images.qcow2From("disk.qcow2", raw);
      try (QnbdProcess qnbd =
          QnbdProcess.serve("--tls", "required", "--tls-psk", keys.toString(), image.toString())) {
        String uri = "nbds://alice@localhost:%d/?tls-psk-file=".formatted(qnbd.port());
        Path copy = images.path("copy.raw");
        Shell.check("nbdcopy", "--connections=4", uri + keys, copy.toString());
        assertEquals(-1, Files.mismatch(raw, copy));
        Shell.Result refused = Shell.run("nbdinfo", uri + wrong);
        assertTrue(refused.exit() != 0, refused.toString());
        qnbd.stop();
      }
    }
  }

  private static Path generate(Images images) {
    Path tls = images.path("tls");
    QnbdProcess.run("serve", "--tls-generate", tls.toString()).mustExit(0);
    return tls;
  }

  private static QnbdProcess serve(Path tls, String mode, String... more) {
    List<String> arguments =
        new ArrayList<>(List.of("--tls", mode, "--tls-certificates", tls.toString()));
    arguments.addAll(List.of(more));
    return QnbdProcess.serve(arguments.toArray(String[]::new));
  }

  /** QEMU's block layer reads the export and the server's own image, and finds them equal. */
  private static void compareByQemu(Path tls, QnbdProcess qnbd, Path image) {
    Shell.check(
        "qemu-img",
        "compare",
        "-U",
        "--object",
        "tls-creds-x509,id=tls0,endpoint=client,dir=" + tls,
        "--image-opts",
        "driver=nbd,server.type=inet,server.host=localhost,server.port=%d,tls-creds=tls0"
            .formatted(qnbd.port()),
        "driver=qcow2,file.driver=file,file.filename=" + image);
  }

  /** nbdkit's nbd plugin is the client; what it serves is read in clear. */
  private static void throughNbdkit(Path tls, QnbdProcess qnbd) {
    Shell.run(
            Duration.ofSeconds(60),
            "nbdkit",
            "-U",
            "-",
            "nbd",
            "hostname=localhost",
            "port=" + qnbd.port(),
            "tls=require",
            "tls-certificates=" + tls,
            "--run",
            "nbdinfo $uri && nbdcopy $uri null:")
        .mustExit(0);
  }
}
