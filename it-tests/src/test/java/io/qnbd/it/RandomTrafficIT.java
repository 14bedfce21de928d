package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.it.client.NbdClient;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * 100,000 random requests over four connections match a model, and qemu-img finds the same bytes
 * and nothing wrong. A failure names its seed; {@code -Dqnbd.seed=N} repeats it as far as four
 * connections can be repeated.
 */
final class RandomTrafficIT {
  private static final int REQUESTS = Integer.getInteger("qnbd.requests", 100_000);
  private static final int CONNECTIONS = 4;

  /** Odd on purpose: the last cluster is not whole, whatever its size. */
  private static final int DISK_BYTES = (48 << 20) + 3 * 512;

  private static final int SHARED_SECTORS = 4096;
  private static final int SHARED_FROM = DISK_BYTES - SHARED_SECTORS * SharedArea.SECTOR_BYTES;

  /** Keeps the boundaries between two connections' bytes off every cluster's boundary. */
  private static final int ODD_BYTES = 12_345;

  private final long seed = Long.getLong("qnbd.seed", ThreadLocalRandom.current().nextLong());

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "version 3, 64 KiB clusters, 16-bit refcounts; compat=1.1",
        "version 2; compat=0.10",
        "4 KiB clusters; cluster_size=4096",
        "2 MiB clusters; cluster_size=2M",
        "1-bit refcounts; refcount_bits=1",
        "64-bit refcounts; refcount_bits=64",
        "preallocated metadata; preallocation=metadata",
        "subclusters of 512 bytes; extended_l2=on,cluster_size=16k"
      })
  void plainImage(String name, String option) throws IOException {
    boolean onDisk = option.equals("compat=1.1");
    try (Images images = onDisk ? Images.inTempDir() : Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES), option);
      drive(name, images, image);
    }
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "no batch and no reservation; cluster_size=64k; --ref-batch 0 --ref-reserve 0",
        "caches that hold next to nothing; cluster_size=512;"
            + " --l2-cache 64K --ref-batch 5 --ref-reserve 3",
        "past the page cache; cluster_size=64k; --cache none",
        "everything by the workers; cluster_size=64k; --fast-path off",
        "nothing is ever synced; cluster_size=64k; --cache unsafe"
      })
  void plainImageWithOtherSettings(String name, String option, String settings) throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES), option);
      drive(name, images, image, settings.split(" "));
    }
  }

  @Test
  void imageWithAnInternalSnapshot() throws IOException {
    try (Images images = Images.inMemory()) {
      Path noise = images.rawOfNoise("noise.raw", SHARED_FROM, 11);
      Files.write(noise, new byte[DISK_BYTES - SHARED_FROM], StandardOpenOption.APPEND);
      Path image = images.qcow2From("disk.qcow2", noise);
      Shell.check("qemu-img", "snapshot", "-c", "before", image.toString());
      drive("internal snapshot", images, image);
      assertArrayEquals(Files.readAllBytes(noise), images.snapshotContents(image, "before"));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"zlib", "zstd"})
  void imageOfCompressedClusters(String compression) throws IOException {
    try (Images images = Images.inMemory()) {
      byte[] bytes = new byte[DISK_BYTES];
      for (int at = 0; at < SHARED_FROM; at++) {
        bytes[at] = (byte) (at >> 9); // compresses well; no two neighbouring clusters are alike
      }
      Path plain = Files.write(images.path("plain.raw"), bytes);
      Path image = images.qcow2From("disk.qcow2", plain, "compression_type=" + compression);
      drive(compression, images, image);
    }
  }

  @ParameterizedTest
  @CsvSource({"20, 30, off", "60, 52, off", "40, 60, on"})
  void imageOverABackingChain(int baseMegabytes, int middleMegabytes, String extendedL2)
      throws IOException {
    try (Images images = Images.inMemory()) {
      Path base = images.path("base.raw");
      byte[] bytes = new byte[baseMegabytes << 20];
      new Random(13).nextBytes(bytes);
      if (bytes.length > SHARED_FROM) {
        Arrays.fill(bytes, SHARED_FROM, bytes.length, (byte) 0);
      }
      Files.write(base, bytes);
      Path middle =
          images.qcow2(
              "middle.qcow2",
              middleMegabytes + "M",
              "backing_file=base.raw",
              "backing_fmt=raw",
              "extended_l2=" + extendedL2);
      Shell.check(
          "qemu-io",
          "-f",
          "qcow2",
          "-c",
          "write -P 9 3M 5M",
          "-c",
          "write -z 12M 1M",
          middle.toString());
      Path image =
          images.qcow2(
              "disk.qcow2",
              Integer.toString(DISK_BYTES),
              "backing_file=middle.qcow2",
              "backing_fmt=qcow2",
              "extended_l2=" + extendedL2);
      drive("backing chain of " + baseMegabytes + " MiB", images, image);
      assertArrayEquals(bytes, Files.readAllBytes(base));
    }
  }

  private void drive(String name, Images images, Path image, String... settings)
      throws IOException {
    byte[] model = images.contents(image);
    assertEquals(DISK_BYTES, model.length);
    SharedArea shared = new SharedArea(SHARED_FROM, SHARED_SECTORS, REQUESTS);
    List<String> arguments = new ArrayList<>(List.of(settings));
    arguments.add(image.toString());
    try (QnbdProcess qnbd = QnbdProcess.serve(arguments.toArray(String[]::new))) {
      try {
        send(qnbd, model, shared);
        qnbd.stop();
      } catch (Throwable e) {
        throw new AssertionError(name + ", repeat with -Dqnbd.seed=" + seed + "\n" + qnbd, e);
      }
    }
    Images.mustBeClean(image);
    byte[] found = images.contents(image);
    int differs = Arrays.mismatch(found, 0, SHARED_FROM, model, 0, SHARED_FROM);
    if (differs >= 0) {
      throw new AssertionError(
          "%s: byte %#x on the host is %#x, expected %#x; repeat with -Dqnbd.seed=%d"
              .formatted(name, differs, found[differs], model[differs], seed));
    }
    shared.verify(
        ByteBuffer.wrap(found, SHARED_FROM, DISK_BYTES - SHARED_FROM).slice(),
        0,
        shared.floors(0, SHARED_SECTORS));
  }

  private void send(QnbdProcess qnbd, byte[] model, SharedArea shared)
      throws IOException, InterruptedException, ExecutionException {
    byte[] noise = new byte[16 << 20];
    new Random(seed).nextBytes(noise);
    List<Future<?>> running = new ArrayList<>();
    try (ExecutorService threads = Executors.newFixedThreadPool(CONNECTIONS)) {
      for (int connection = 0; connection < CONNECTIONS; connection++) {
        int from = edge(connection);
        int to = edge(connection + 1);
        long clientSeed = seed + connection;
        running.add(
            threads.submit(() -> {
              try (NbdClient client =
                  NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
                assertEquals(DISK_BYTES, client.exportBytes());
                new RandomClient(client, clientSeed, model, from, to, shared, noise)
                    .run(REQUESTS / CONNECTIONS);
              }
              return null;
            }));
      }
      for (Future<?> connection : running) {
        connection.get();
      }
    }
  }

  private static int edge(int connection) {
    if (connection == 0) {
      return 0;
    }
    return connection == CONNECTIONS
        ? SHARED_FROM
        : SHARED_FROM / CONNECTIONS * connection + ODD_BYTES;
  }
}
