package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import io.qnbd.it.client.NbdException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The clients that people have: QEMU's tools, libnbd's, fio, nbdkit; and both kinds of reply. */
final class ClientsIT {
  private static final int NOISE_BYTES = 12 << 20;

  /** Where an extent starts, how long it is and whether it reads as zeroes. */
  private static final Pattern MAP_EXTENT =
      Pattern.compile("\"start\": (\\d+), \"length\": (\\d+),.*\"zero\": (true|false)");

  /** NBD_EPERM. */
  private static final int NOT_PERMITTED = 1;

  /** How a server is asked for and where; the socket lies beside the image. */
  private static QnbdProcess serve(Images images, boolean unix, String... arguments) {
    if (!unix) {
      return QnbdProcess.serve(arguments);
    }
    String[] all = Arrays.copyOf(arguments, arguments.length + 2);
    all[arguments.length] = "--unix";
    all[arguments.length + 1] = images.path("qnbd.sock").toString();
    return QnbdProcess.serve(all);
  }

  @ParameterizedTest
  @CsvSource({
    "writeback, false",
    "writeback, true",
    "writethrough, false",
    "none, true",
    "directsync, false",
    "unsafe, false"
  })
  void qemuIoReadsWhatItWrote(String cache, boolean unix) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      try (QnbdProcess qnbd = serve(images, unix, "--cache", cache, image.toString())) {
        qemuIo(
            qnbd.uri().toString(),
            "write -P 0x5a 1000 700000",
            "write -f -P 0x5b 3M 64k",
            "write -z 3080k 8k",
            "discard 8M 1M",
            "write -P 0x5c 67108000 864",
            "flush",
            "read -P 0 0 1000",
            "read -P 0x5a 1000 700000",
            "read -P 0 701000 1000",
            "read -P 0 3080k 8k",
            "read -P 0x5b 3088k 48k",
            "read -P 0x5c 67108000 864");
        qnbd.stop();
      }
      qemuIo(
          image.toString(),
          "read -P 0x5a 1000 700000",
          "read -P 0 3080k 8k",
          "read -P 0x5c 67108000 864");
    }
  }

  private static void qemuIo(String target, String... commands) {
    String[] all = new String[3 + 2 * commands.length];
    all[0] = "qemu-io";
    all[1] = "-f";
    all[2] = target.startsWith("nbd") ? "raw" : "qcow2";
    for (int index = 0; index < commands.length; index++) {
      all[3 + 2 * index] = "-c";
      all[4 + 2 * index] = commands[index];
    }
    all = Arrays.copyOf(all, all.length + 1);
    all[all.length - 1] = target;
    Shell.Result result = Shell.run(all).mustExit(0);
    assertTrue(
        !result.out().contains("failed") && !result.err().contains("rror"), result::toString);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void qemuImgConvertsBothWaysAndFindsTheCopiesEqual(boolean unix) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path noise = holedNoise(images);
      Path image = images.qcow2("disk.qcow2", "16M");
      Path back = images.path("back.raw");
      try (QnbdProcess qnbd = serve(images, unix, image.toString())) {
        String uri = qnbd.uri().toString();
        String info = Shell.check("qemu-img", "info", "--output=json", uri);
        assertTrue(info.contains("\"virtual-size\": 16777216"), info);
        Shell.check("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", noise.toString(), uri);
        Shell.check("qemu-img", "compare", "-f", "raw", "-F", "raw", noise.toString(), uri);
        Shell.check("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, back.toString());
        qnbd.stop();
      }
      assertEquals(-1, Files.mismatch(noise, back));
      Shell.check(
          "qemu-img", "compare", "-f", "raw", "-F", "qcow2", noise.toString(), image.toString());
    }
  }

  /** 16 MiB: noise, with holes at 2 MiB and at the end. */
  private static Path holedNoise(Images images) throws IOException {
    byte[] bytes = new byte[16 << 20];
    byte[] noise = new byte[NOISE_BYTES];
    new Random(17).nextBytes(noise);
    System.arraycopy(noise, 0, bytes, 0, noise.length);
    Arrays.fill(bytes, 2 << 20, 4 << 20, (byte) 0);
    return Files.write(images.path("noise.raw"), bytes);
  }

  @Test
  void mapCoversTheDiskAndCallsNoDataAHole() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2From("disk.qcow2", holedNoise(images));
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        String uri = qnbd.uri().toString();
        String map = Shell.check("qemu-img", "map", "-f", "raw", "--output=json", uri);
        long covered = 0;
        for (MatchResult extent : MAP_EXTENT.matcher(map).results().toList()) {
          long start = Long.parseLong(extent.group(1));
          long length = Long.parseLong(extent.group(2));
          assertEquals(covered, start, map);
          covered = start + length;
          boolean holed = (start >= 2 << 20 && covered <= 4 << 20) || start >= NOISE_BYTES;
          assertTrue(holed || extent.group(3).equals("false"), map);
        }
        assertEquals(16 << 20, covered, map);
        qnbd.stop();
      }
    }
  }

  @Test
  void nbdinfoNamesSizeAndAbilities() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path second = images.qcow2("other.qcow2", "1M");
      try (QnbdProcess qnbd = QnbdProcess.serve("a=" + image, "b=" + second)) {
        String base = "nbd://127.0.0.1:" + qnbd.port() + "/";
        String info = Shell.check("nbdinfo", "--json", base + "a");
        for (String fact :
            List.of(
                "\"export-size\": 67108864",
                "\"is_read_only\": false",
                "\"can_flush\": true",
                "\"can_fua\": true",
                "\"can_trim\": true",
                "\"can_zero\": true",
                "\"can_multi_conn\": true")) {
          assertTrue(info.contains(fact), () -> fact + " is missing in\n" + info);
        }
        String list = Shell.check("nbdinfo", "--list", "--json", base);
        assertTrue(list.contains("\"export-name\": \"a\""), list);
        assertTrue(list.contains("\"export-size\": 1048576"), list);
        Shell.run("nbdinfo", base + "nobody").mustExit(1);
        qnbd.stop();
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"writeback, false", "writeback, true", "none, false", "writethrough, true"})
  void nbdcopyCopiesBothWays(String cache, boolean unix) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path noise = holedNoise(images);
      Path image = images.qcow2("disk.qcow2", "16M");
      Path back = images.path("back.raw");
      try (QnbdProcess qnbd = serve(images, unix, "--cache", cache, image.toString())) {
        String uri = qnbd.uri().toString();
        Shell.check("nbdcopy", "--flush", noise.toString(), uri);
        Shell.check("nbdcopy", uri, back.toString());
        qnbd.stop();
      }
      assertEquals(-1, Files.mismatch(noise, back));
      assertArrayEquals(Files.readAllBytes(noise), images.contents(image));
    }
  }

  @ParameterizedTest
  @CsvSource({
    "writeback, false",
    "writeback, true",
    "writethrough, false",
    "none, false",
    "directsync, true",
    "unsafe, false"
  })
  void fioVerifiesWhatItWrote(String cache, boolean unix) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      boolean synced = cache.equals("writethrough") || cache.equals("directsync");
      try (QnbdProcess qnbd = serve(images, unix, "--cache", cache, image.toString())) {
        Shell.check(
            "fio",
            "--name=verify",
            "--ioengine=nbd",
            "--uri=" + qnbd.uri(),
            "--rw=randrw",
            "--bsrange=512-96k",
            "--blockalign=512",
            "--iodepth=8",
            "--numjobs=4",
            "--size=16M",
            "--offset_increment=16M",
            "--io_size=" + (synced ? "2M" : "16M"),
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--group_reporting",
            "--minimal");
        qnbd.stop();
      }
    }
  }

  @Test
  void nbdkitStandsInFront() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path noise = holedNoise(images);
      Path image = images.qcow2("disk.qcow2", "16M");
      Path socket = images.path("nbdkit.sock");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString());
          Shell.Running nbdkit =
              Shell.start("nbdkit", "-f", "-U", socket.toString(), "nbd", "uri=" + qnbd.uri())) {
        String front = "nbd+unix:///?socket=" + socket;
        for (int attempt = 0; !Files.exists(socket); attempt++) {
          assertTrue(attempt < 200 && nbdkit.process().isAlive(), nbdkit::toString);
          Shell.pause(Duration.ofMillis(50));
        }
        Shell.check("nbdcopy", "--flush", noise.toString(), front);
        Shell.check("qemu-img", "compare", "-f", "raw", "-F", "raw", noise.toString(), front);
        nbdkit.signal("TERM");
        nbdkit.await(Duration.ofSeconds(20)).mustExit(0);
        qnbd.stop();
      }
      assertArrayEquals(Files.readAllBytes(noise), images.contents(image));
    }
  }

  @ParameterizedTest
  @EnumSource(NbdClient.Style.class)
  void everyHandshakeAndKindOfReplyIsServed(NbdClient.Style style) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "16M");
      byte[] data = new byte[3 << 20];
      new Random(19).nextBytes(data);
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        try (NbdClient client = NbdClient.connect(qnbd.uri(), style)) {
          assertEquals(16 << 20, client.exportBytes());
          NbdClient.await(client.write(777, ByteBuffer.wrap(data), NbdClient.FLAG_FUA));
          NbdClient.await(client.writeZeroes(1 << 20, 1 << 20, 0));
          Arrays.fill(data, (1 << 20) - 777, (2 << 20) - 777, (byte) 0);
          byte[] read = new byte[data.length];
          NbdClient.await(client.read(777, ByteBuffer.wrap(read)));
          assertArrayEquals(data, read);
          NbdException beyond =
              assertThrows(
                  NbdException.class,
                  () -> NbdClient.await(client.read(16 << 20, ByteBuffer.allocate(1))));
          assertEquals(22, beyond.error());
          NbdClient.await(client.flush());
        }
        qnbd.stop();
      }
    }
  }

  @Test
  void readOnlyExportRefusesEveryChange() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "16M");
      byte[] before = Files.readAllBytes(image);
      try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
        try (NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
          for (var change :
              List.of(
                  client.write(0, ByteBuffer.allocate(512), 0),
                  client.writeZeroes(0, 512, 0),
                  client.trim(0, 512, 0))) {
            NbdException refused = assertThrows(NbdException.class, () -> NbdClient.await(change));
            assertEquals(NOT_PERMITTED, refused.error());
          }
          NbdClient.await(client.read(0, ByteBuffer.allocate(512)));
        }
        qnbd.stop();
      }
      assertArrayEquals(before, Files.readAllBytes(image));
    }
  }
}
