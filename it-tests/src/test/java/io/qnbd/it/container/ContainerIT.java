package io.qnbd.it.container;

import static java.util.Objects.requireNonNull;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.github.dockerjava.api.model.AccessMode;
import com.github.dockerjava.api.model.Capability;
import io.qnbd.it.Images;
import io.qnbd.it.Shell;
import io.qnbd.it.client.NbdClient;
import io.qnbd.it.client.NbdException;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.testcontainers.containers.GenericContainer;

/** The container image in use, and its containers in trouble. */
final class ContainerIT {
  private static final int MEGABYTES = 160;
  private static final int CHUNK_BYTES = 64 * 1024;
  private static final int ENOSPC = 28;
  private static final Duration PATIENCE = Duration.ofMinutes(2);

  /** A directory in which the image's user may write. */
  private static Images images() throws IOException {
    Images images = Images.inTempDir();
    Files.setPosixFilePermissions(images.dir(), PosixFilePermissions.fromString("rwxrwxrwx"));
    return images;
  }

  /** An image that belongs to the image's user. */
  private static Path image(Images images, String size) {
    Path image = images.qcow2("disk.qcow2", size);
    Shell.check("chown", Containers.USER, image.toString());
    return image;
  }

  private static String[] fio(String uri, String... more) {
    List<String> command = new ArrayList<>(List.of("fio", "--name=it", "--ioengine=nbd"));
    command.addAll(List.of("--uri=" + uri, "--minimal"));
    command.addAll(Arrays.asList(more));
    return command.toArray(String[]::new);
  }

  private static byte[] chunk(int number) {
    byte[] bytes = new byte[CHUNK_BYTES];
    new Random(number).nextBytes(bytes);
    return bytes;
  }

  private static void write(NbdClient client, int number) throws IOException {
    NbdClient.await(client.write((long) number * CHUNK_BYTES, ByteBuffer.wrap(chunk(number)), 0));
  }

  private static void mustHold(NbdClient client, int number) throws IOException {
    byte[] found = new byte[CHUNK_BYTES];
    NbdClient.await(client.read((long) number * CHUNK_BYTES, ByteBuffer.wrap(found)));
    assertArrayEquals(chunk(number), found, "chunk " + number);
  }

  @Test
  void servesFioNbdcopyAndQemuIoOfAnotherContainer() throws IOException {
    try (Images images = images();
        GenericContainer<?> server =
            Containers.server(MEGABYTES, images.dir(), "--create", "256M", "/images/made.qcow2");
        GenericContainer<?> client = Containers.client()) {
      server.start();
      client.start();
      String uri = Containers.inside(server);
      Containers.exec(
          client,
          fio(uri, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=32M", "--verify=crc32c"));
      Containers.exec(client, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 100M 1M", uri);
      Containers.exec(client, "qemu-io", "-f", "raw", "-c", "read -P 0x5a 100M 1M", uri);
      Containers.exec(
          client,
          "bash",
          "-ec",
          "head -c 30000000 /dev/urandom >in; truncate -s 256M in; nbdcopy in '%s'; nbdcopy '%s' out; cmp in out"
              .formatted(uri, uri));

      assertEquals("", Containers.exec(server, "qnbd-healthcheck"));
      Shell.Result sick =
          Shell.run(
              "docker", "exec", server.getContainerId(), "qnbd-healthcheck", "127.0.0.1", "9");
      assertTrue(sick.mustExit(1).err().contains("qnbd at 127.0.0.1:9: "), sick::toString);
      assertEquals(Containers.USER, Containers.exec(server, "id", "-u").strip());
      Containers.stop(server);
      Images.mustBeClean(images.path("made.qcow2"));
    }
  }

  @Test
  void theImageHasAHealthcheckAndAVolume() {
    String config =
        Shell.check("docker", "inspect", "-f", "{{json .Config}}", Containers.qnbdImage());
    assertTrue(config.contains("\"Test\":[\"CMD\",\"qnbd-healthcheck\"]"), config);
    assertTrue(config.contains("\"/images\""), config);
    assertTrue(config.contains("\"10809/tcp\""), config);
  }

  /** Its root file system is read-only, so that no native library can be unpacked. */
  @ParameterizedTest
  @CsvSource({"zlib,libdeflate.so.0", "zstd,libzstd-jni.so"})
  void readsCompressedImagesWithTheLibraryInTheImage(String compression, String library)
      throws IOException {
    try (Images images = images()) {
      Path raw = images.path("disk.raw");
      byte[] pattern = new byte[4 << 20];
      for (int index = 0; index < pattern.length; index++) {
        pattern[index] = (byte) (index >>> 12);
      }
      Files.write(raw, pattern);
      Path image = images.qcow2From("disk.qcow2", raw, "compression_type=" + compression);
      Shell.check("chown", Containers.USER, image.toString());
      try (GenericContainer<?> server =
          Containers.server(MEGABYTES, images.dir(), "/images/disk.qcow2")) {
        server.start();
        byte[] found = new byte[pattern.length];
        try (NbdClient nbd =
            NbdClient.connect(Containers.uri(server), NbdClient.Style.GO_STRUCTURED)) {
          NbdClient.await(nbd.read(0, ByteBuffer.wrap(found)));
        }
        assertArrayEquals(pattern, found);
        String loaded = Containers.exec(server, "cat", "/proc/1/maps");
        assertTrue(loaded.contains(library), loaded);
        Containers.stop(server);
      }
    }
  }

  @Test
  void killedUnderLoadItLosesNothingThatWasFlushed() throws IOException {
    try (Images images = images()) {
      Path image = image(images, "512M");
      images.leaveUnchecked(image);
      int flushed;
      try (GenericContainer<?> server =
              Containers.server(MEGABYTES, images.dir(), "/images/disk.qcow2");
          GenericContainer<?> client = Containers.client()) {
        server.start();
        client.start();
        String[] load =
            fio(
                Containers.inside(server),
                "--rw=randrw",
                "--bs=4k",
                "--iodepth=32",
                "--offset=256M",
                "--size=200M",
                "--fsync=64",
                "--time_based",
                "--runtime=60");
        List<String> command = new ArrayList<>(List.of("docker", "exec", client.getContainerId()));
        command.addAll(Arrays.asList(load));
        try (Shell.Running fio = Shell.start(command.toArray(String[]::new))) {
          flushed = writeUntilKilled(server);
          fio.await(PATIENCE);
        }
        Containers.mustHaveExited(server, 137);
      }
      Images.mustLeakAtMost(image);
      try (GenericContainer<?> server =
          Containers.server(MEGABYTES, images.dir(), "/images/disk.qcow2")) {
        server.start();
        try (NbdClient nbd =
            NbdClient.connect(Containers.uri(server), NbdClient.Style.GO_STRUCTURED)) {
          for (int number = 0; number < flushed; number++) {
            mustHold(nbd, number);
          }
        }
        Containers.stop(server);
      }
      Images.mustLeakAtMost(image);
    }
  }

  /** Returns how many chunks were flushed; more were on their way when the server was killed. */
  private static int writeUntilKilled(GenericContainer<?> server) throws IOException {
    try (NbdClient nbd = NbdClient.connect(Containers.uri(server), NbdClient.Style.GO_SIMPLE)) {
      int number = 0;
      while (number < 512) {
        for (int end = number + 64; number < end; number++) {
          write(nbd, number);
        }
        NbdClient.await(nbd.flush());
      }
      for (int later = number; later < number + 64; later++) {
        var _ = nbd.write((long) later * CHUNK_BYTES, ByteBuffer.wrap(chunk(later)), 0);
      }
      Shell.check("docker", "kill", "-s", "KILL", server.getContainerId());
      nbd.abort();
      return number;
    }
  }

  @Test
  void stopsPolitelyUnderLoad() throws IOException {
    try (Images images = images()) {
      image(images, "512M");
      try (GenericContainer<?> server =
          Containers.server(MEGABYTES, images.dir(), "/images/disk.qcow2")) {
        server.start();
        String uri = Containers.uri(server).toString();
        try (Shell.Running fio =
            Shell.start(
                fio(
                    uri,
                    "--rw=randwrite",
                    "--bs=16k",
                    "--iodepth=32",
                    "--size=512M",
                    "--time_based",
                    "--runtime=60"))) {
          mustGrow(images.path("disk.qcow2"), 20_000_000);
          Containers.stop(server);
          fio.await(PATIENCE);
        }
      }
    }
  }

  private static void mustGrow(Path image, long bytes) {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (Images.bytesOnHost(image) < bytes) {
      assertTrue(System.nanoTime() < deadline, "the load does not arrive");
      Shell.pause(Duration.ofMillis(50));
    }
  }

  @Test
  void servesDeepQueuesInLittleMemory() throws IOException {
    try (Images images = images()) {
      image(images, "10G");
      try (GenericContainer<?> server =
          Containers.server(128, images.dir(), "/images/disk.qcow2")) {
        server.start();
        Shell.check(
            fio(
                Containers.uri(server).toString(),
                "--rw=randwrite",
                "--bs=64k",
                "--iodepth=64",
                "--size=10G",
                "--io_size=128M",
                "--verify=crc32c"));
        Containers.stop(server);
      }
    }
  }

  @Test
  void aFullDiskIsAnErrorForTheWriteAndLosesNothing() throws IOException {
    try (GenericContainer<?> server =
        Containers.server(MEGABYTES, "--create", "1G", "/images/disk.qcow2")
            .withTmpFs(Containers.memoryVolume(24))) {
      server.start();
      URI uri = Containers.uri(server);
      int written = 0;
      try (NbdClient nbd = NbdClient.connect(uri, NbdClient.Style.GO_STRUCTURED)) {
        for (; written < 128; written++) {
          write(nbd, written);
        }
        NbdClient.await(nbd.flush());
        int beyond = written;
        NbdException full =
            assertThrows(
                NbdException.class,
                () -> {
                  for (int number = beyond; ; number++) {
                    write(nbd, number);
                  }
                });
        assertEquals(ENOSPC, full.error(), full::toString);
        for (int number = 0; number < written; number++) {
          mustHold(nbd, number);
        }
      }
      Containers.stop(server);
    }
  }

  @Test
  void aReadOnlyVolumeIsServedReadOnlyAndNotOtherwise() throws IOException {
    try (Images images = images()) {
      image(images, "64M");
      try (GenericContainer<?> server =
          Containers.withImages(
              Containers.server(MEGABYTES, "--read-only", "/images/disk.qcow2"),
              images.dir(),
              AccessMode.ro)) {
        server.start();
        String info = Shell.check("nbdinfo", Containers.uri(server).toString());
        assertTrue(info.contains("is_read_only: true"), info);
        Containers.stop(server);
      }
      Shell.Result refused =
          Shell.run(
              "docker",
              "run",
              "--rm",
              "-v",
              images.dir() + ":/images:ro",
              Containers.qnbdImage(),
              "serve",
              "/images/disk.qcow2");
      assertEquals(1, refused.mustExit(1).err().lines().count(), refused::toString);
      assertTrue(refused.err().contains("Read-only file system"), refused::toString);
    }
  }

  @Test
  void dataSurvivesANetworkThatDropsAndDelaysPackets() throws IOException {
    try (Images images = images()) {
      image(images, "128M");
      try (GenericContainer<?> server =
              Containers.server(MEGABYTES, images.dir(), "/images/disk.qcow2");
          GenericContainer<?> client =
              Containers.client()
                  .withCreateContainerCmdModifier(create ->
                      requireNonNull(create.getHostConfig()).withCapAdd(Capability.NET_ADMIN))) {
        server.start();
        client.start();
        // One packet in fifty is lost on the way in; on the way out a slow link delays what it
        // queues, and drops what its queue does not hold.
        Containers.exec(
            client,
            "bash",
            "-ec",
            """
            iptables -A INPUT -m statistic --mode random --probability 0.02 -j DROP
            tc qdisc add dev eth0 root tbf rate 40mbit burst 32kb limit 64kb
            """);
        Containers.exec(
            client,
            fio(
                Containers.inside(server),
                "--rw=randwrite",
                "--bsrange=4k-128k",
                "--iodepth=16",
                "--size=16M",
                "--verify=crc32c"));
        String dropped = Containers.exec(client, "bash", "-c", "iptables -vxnL INPUT; tc -s qdisc");
        assertTrue(dropped.matches("(?s).*\\n +[1-9][0-9]* +[0-9]+ DROP.*"), dropped);
        Containers.stop(server);
      }
    }
  }

  @Test
  void aDiskThatMayNotBeOpenedIsOneSentence() throws IOException {
    try (Images images = images()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Shell.check("chmod", "0600", image.toString());
      Shell.Result refused =
          Shell.run(
              "docker",
              "run",
              "--rm",
              "-v",
              images.dir() + ":/images",
              Containers.qnbdImage(),
              "serve",
              "/images/disk.qcow2");
      assertEquals(1, refused.mustExit(1).err().lines().count(), refused::toString);
    }
  }
}
