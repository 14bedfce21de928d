package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import io.qnbd.it.client.NbdException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** What goes wrong outside is answered with one sentence and the documented exit code. */
final class BadInputIT {
  private static final int USAGE = 64;

  /** NBD_ENOSPC. */
  private static final int NO_SPACE = 28;

  /**
   * Fails unless the command ended with {@code exit} and said one sentence on standard error, with
   * one of these words in it.
   */
  static void assertRefused(Shell.Result result, int exit, String... words) {
    result.mustExit(exit);
    List<String> lines = result.err().lines().filter(line -> !line.isBlank()).toList();
    assertEquals(1, lines.size(), () -> "one sentence is expected\n" + result);
    String said = result.out() + result.err();
    assertTrue(!said.contains("Exception") && !said.contains("\tat "), result::toString);
    String sentence = lines.getFirst().toLowerCase(Locale.ROOT);
    assertTrue(
        words.length == 0 || Arrays.stream(words).anyMatch(sentence::contains),
        () -> "none of " + Arrays.toString(words) + "\n" + result);
  }

  private static void assertNotServed(Path image, String... words) {
    assertRefused(QnbdProcess.run("serve", "--listen", "127.0.0.1:0", image.toString()), 1, words);
  }

  @Test
  void missingFileIsNamed() throws IOException {
    try (Images images = Images.inTempDir()) {
      assertNotServed(images.path("missing.qcow2"), "missing.qcow2");
      assertRefused(QnbdProcess.run("info", images.path("missing.qcow2").toString()), 1, "missing");
      assertRefused(QnbdProcess.run("check", images.path("gone.qcow2").toString()), 1, "gone");
    }
  }

  @Test
  void directoryIsNoImage() throws IOException {
    try (Images images = Images.inTempDir()) {
      assertNotServed(images.dir(), "directory");
    }
  }

  @Test
  void usageErrorsHaveTheirOwnExitCode() {
    QnbdProcess.run("serve").mustExit(USAGE);
    QnbdProcess.run("serve", "--no-such-option", "x").mustExit(USAGE);
    QnbdProcess.run("serve", "--cache", "sometimes", "x").mustExit(USAGE);
    QnbdProcess.run("no-such-command").mustExit(USAGE);
    QnbdProcess.run("create", "x.qcow2", "many").mustExit(USAGE);
  }

  @Test
  void fileThatTheUserMayNotReadIsRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Files.setPosixFilePermissions(image, PosixFilePermissions.fromString("---------"));
      Files.setPosixFilePermissions(images.dir(), PosixFilePermissions.fromString("rwxr-xr-x"));
      assertRefused(asNobody(images.dir(), image), 1, "permission denied");
    }
  }

  @Test
  void fileThatTheUserMayNotWriteIsRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Files.setPosixFilePermissions(image, PosixFilePermissions.fromString("r--r--r--"));
      Files.setPosixFilePermissions(images.dir(), PosixFilePermissions.fromString("rwxr-xr-x"));
      assertRefused(asNobody(images.dir(), image), 1, "permission denied");
    }
  }

  /** Serves the image as a user who owns nothing; the program is copied to where he may read it. */
  private static Shell.Result asNobody(Path dir, Path image) {
    if (!System.getProperty("user.name").equals("root")) {
      return QnbdProcess.run("serve", "--listen", "127.0.0.1:0", image.toString());
    }
    Path program = dir.resolve("program");
    Path app = Repository.root().resolve(Path.of("server", "target", "app"));
    Shell.check("mkdir", "-p", program.resolve(Path.of("server", "target")).toString());
    Shell.check(
        "cp", "-r", app.toString(), program.resolve(Path.of("server", "target")).toString());
    Shell.check("cp", QnbdProcess.launcher(), program.resolve("qnbd").toString());
    return Shell.run(
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        program.resolve("qnbd").toString(),
        "serve",
        "--listen",
        "127.0.0.1:0",
        image.toString());
  }

  @Test
  void portInUseIsNamed() throws IOException {
    try (Images images = Images.inTempDir();
        ServerSocket taken = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      Path image = images.qcow2("disk.qcow2", "64M");
      String address = "127.0.0.1:" + taken.getLocalPort();
      assertRefused(
          QnbdProcess.run("serve", "--listen", address, image.toString()),
          1,
          Integer.toString(taken.getLocalPort()));
    }
  }

  @Test
  void truncatedImageIsRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path noise = images.rawOfNoise("noise.raw", 4 << 20, 1);
      Path image = images.qcow2From("disk.qcow2", noise);
      images.leaveUnchecked(image);
      try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
        file.setLength(100);
      }
      assertNotServed(image);
      try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
        file.setLength(50);
      }
      assertNotServed(image);
    }
  }

  @Test
  void imageWhoseTablesAreCutOffIsRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path noise = images.rawOfNoise("noise.raw", 4 << 20, 1);
      Path image = images.qcow2From("disk.qcow2", noise);
      images.leaveUnchecked(image);
      try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
        file.setLength(65536); // the header's cluster is all that is left
      }
      assertNotServed(image);
    }
  }

  @Test
  void damagedHeadersAreRefused() throws IOException {
    assertHeaderRefused(20, 40, "cluster_bits"); // the high bytes of a 32-bit field
    assertHeaderRefused(4, 9, "version");
    assertHeaderRefused(72, 0x80, "feature"); // an unknown incompatible bit
    assertHeaderRefused(48, 0x7f, ""); // the refcount table lies beyond any file
    assertHeaderRefused(40, 0x7f, ""); // the L1 table lies beyond any file
    assertHeaderRefused(32, 2, "encr"); // LUKS without its header extension
  }

  /** {@code value} goes into the lowest byte of a 32-bit field, or the highest of a 64-bit one. */
  private static void assertHeaderRefused(int field, int value, String word) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("field" + field + ".qcow2", "64M");
      images.leaveUnchecked(image);
      boolean wide = field == 40 || field == 48 || field == 72;
      try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
        file.seek(wide ? field : field + 3);
        file.write(value);
      }
      assertNotServed(image, word);
    }
  }

  @Test
  void encryptedImageIsRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.path("luks.qcow2");
      Shell.check(
          "qemu-img",
          "create",
          "-q",
          "--object",
          "secret,id=s,data=swordfish",
          "-f",
          "qcow2",
          "-o",
          "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
          image.toString(),
          "8M");
      assertNotServed(image, "encrypt", "luks");
    }
  }

  @Test
  void rawImageIsWrittenOnlyWhenTheUserSaysThatItIsRaw() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path raw = images.rawOfNoise("disk.raw", 1 << 20, 3);
      assertNotServed(raw, "raw");
      try (QnbdProcess qnbd = QnbdProcess.serve("--format", "raw", raw.toString())) {
        Shell.check("qemu-img", "compare", "-f", "raw", qnbd.uri().toString(), raw.toString());
        qnbd.stop();
      }
    }
  }

  @Test
  void dirtyImageOpensOrIsRefusedInOneSentence() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("dirty.qcow2", "64M", "lazy_refcounts=on");
      images.leaveUnchecked(image);
      Shell.run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", "-c", "abort", image.toString());
      String info = Shell.check("qemu-img", "info", "-U", image.toString());
      assertTrue(info.contains("lazy refcounts: true"), info);
      Shell.Result checked = QnbdProcess.run("check", image.toString());
      assertTrue(List.of(0, 1, 2, 3).contains(checked.exit()), checked::toString);
      try (Shell.Running serve =
          Shell.start(
              QnbdProcess.launcher(), "serve", "--listen", "127.0.0.1:0", image.toString())) {
        boolean ready = QnbdProcess.awaitReadyOrEnd(serve);
        if (ready) {
          serve.signal("TERM");
          serve.await(QnbdProcess.STOP_MAX).mustExit(0);
          Images.mustBeClean(image);
        } else {
          assertRefused(serve.await(QnbdProcess.STOP_MAX), 1, "dirty", "check", "lazy");
        }
      }
    }
  }

  @Test
  void fullHostIsAnErrorForTheWriteAndForNothingElse() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path small = Files.createDirectory(images.path("small"));
      Shell.check("mount", "-t", "tmpfs", "-o", "size=12m", "none", small.toString());
      try {
        fillTheHost(small.resolve("disk.qcow2"));
      } finally {
        Shell.check("umount", small.toString());
      }
    }
  }

  private static void fillTheHost(Path image) throws IOException {
    Shell.check("qemu-img", "create", "-q", "-f", "qcow2", image.toString(), "64M");
    byte[] chunk = new byte[256 << 10];
    new Random(5).nextBytes(chunk);
    int written = 0;
    try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
      try (NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
        NbdException refused = null;
        while (refused == null && written < 64 << 20) {
          try {
            NbdClient.await(client.write(written, ByteBuffer.wrap(chunk), 0));
            written += chunk.length;
          } catch (NbdException e) {
            refused = e;
          }
        }
        NbdException error = refused;
        assertTrue(error != null && error.error() == NO_SPACE, () -> error + "\n" + qnbd);
        assertTrue(written >= 8 << 20, "full after " + written);
        assertHolds(client, written, chunk);
        assertThrows(
            NbdException.class,
            () -> NbdClient.await(client.write(60 << 20, ByteBuffer.wrap(chunk), 0)));
        NbdClient.await(client.write(0, ByteBuffer.wrap(chunk), NbdClient.FLAG_FUA));
        NbdClient.await(client.trim(0, 2 << 20, 0));
        NbdClient.await(client.flush());
        NbdClient.await(client.write(0, ByteBuffer.wrap(chunk), 0));
      }
      qnbd.stop();
    }
    Images.mustLeakAtMost(image);
    Images.mustBeClean(image);
  }

  private static void assertHolds(NbdClient client, int bytes, byte[] chunk) throws IOException {
    byte[] read = new byte[chunk.length];
    for (int at = 0; at < bytes; at += chunk.length) {
      NbdClient.await(client.read(at, ByteBuffer.wrap(read)));
      assertArrayEquals(chunk, read);
    }
  }
}
