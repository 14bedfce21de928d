package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Images with extended L2 entries that QEMU and we make for each other and write to by turns. */
@Timeout(300)
final class SubclustersIT {
  private static final int DISK_BYTES = (12 << 20) + 512;

  /** QEMU's file, or through our server. */
  private static void change(Path image, boolean byQemu, List<String> commands) {
    List<String> command = new ArrayList<>(List.of("qemu-io", "-d", "unmap", "-f"));
    if (byQemu) {
      command.add("qcow2");
      command.addAll(commands);
      command.add(image.toString());
      Shell.check(command.toArray(String[]::new));
      return;
    }
    try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
      command.add("raw");
      command.addAll(commands);
      command.add(qnbd.uri().toString());
      Shell.check(command.toArray(String[]::new));
      qnbd.stop();
    }
  }

  /** Random writes, zeroes and trims in whole sectors, which the model follows. */
  private static List<String> commands(Random random, byte[] model, boolean discards) {
    List<String> commands = new ArrayList<>();
    for (int step = 0; step < 40; step++) {
      int bytes = (1 + random.nextInt(random.nextBoolean() ? 8 : 600)) * 512;
      int at = random.nextInt((DISK_BYTES - bytes) / 512) * 512;
      int pattern = 1 + random.nextInt(255);
      String range = at + " " + bytes;
      commands.add("-c");
      switch (random.nextInt(discards ? 5 : 4)) {
        case 0 -> {
          commands.add("write -z " + range);
          pattern = 0;
        }
        case 1 -> {
          commands.add("write -z -u " + range);
          pattern = 0;
        }
        case 4 -> {
          // What is then written to is known again, whatever became of the trim.
          commands.addAll(List.of("discard " + range, "-c", "write -P " + pattern + " " + range));
        }
        default -> commands.add("write -P " + pattern + " " + range);
      }
      Arrays.fill(model, at, at + bytes, (byte) pattern);
    }
    return commands;
  }

  @ParameterizedTest
  @CsvSource({
    "16k, qemu, false",
    "64k, qemu, true",
    "2M, qemu, true",
    "16k, qnbd, true",
    "64k, qnbd, false",
    "2M, qnbd, false"
  })
  void oursAndQemusMix(String clusterSize, String maker, boolean backed) throws IOException {
    long seed = Long.getLong("qnbd.seed", 5);
    Random random = new Random(seed);
    try (Images images = Images.inMemory()) {
      byte[] model = new byte[DISK_BYTES];
      List<String> options =
          new ArrayList<>(List.of("extended_l2=on", "cluster_size=" + clusterSize));
      if (backed) {
        int bytes = 7 << 20;
        Path base = images.rawOfNoise("base.raw", bytes, seed);
        System.arraycopy(Files.readAllBytes(base), 0, model, 0, bytes);
        options.addAll(List.of("backing_file=base.raw", "backing_fmt=raw"));
      }
      Path image = images.path("disk.qcow2");
      if (maker.equals("qemu")) {
        images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES), options.toArray(String[]::new));
      } else {
        String list = String.join(",", options);
        QnbdProcess.run("create", "-q", "-o", list, image.toString(), Integer.toString(DISK_BYTES))
            .mustExit(0);
      }
      for (int turn = 0; turn < 4; turn++) {
        boolean byQemu = turn % 2 == (maker.equals("qemu") ? 0 : 1);
        change(image, byQemu, commands(random, model, true));
        Images.mustBeClean(image);
        assertArrayEquals(model, images.contents(image), "after turn " + turn);
      }
      try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
        Path copy = images.path("copy.raw");
        Shell.check("nbdcopy", qnbd.uri().toString(), copy.toString());
        assertArrayEquals(model, Files.readAllBytes(copy), "read through qnbd");
        qnbd.stop();
      }
    }
  }

  /** QEMU 7.2 aborts when it is asked to cache a range of such an overlay. */
  @Test
  void cachesARangeOfAnOverlay() throws IOException {
    try (Images images = Images.inMemory()) {
      images.rawOfNoise("base.raw", 1 << 20, 3);
      Path image =
          images.qcow2(
              "disk.qcow2", "1M", "extended_l2=on", "backing_file=base.raw", "backing_fmt=raw");
      change(image, true, List.of("-c", "write -P 7 70k 3k", "-c", "write -z 200k 100k"));
      byte[] before = images.contents(image);
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        try (NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
          NbdClient.await(client.cache(0, 1 << 20));
          NbdClient.await(client.cache(70_001, 4000));
          byte[] found = new byte[1 << 20];
          NbdClient.await(client.read(0, ByteBuffer.wrap(found)));
          assertArrayEquals(before, found);
        }
        qnbd.stop();
      }
    }
  }

  @Test
  void tellsOfItAndRefusesWhatCantBe() throws IOException {
    try (Images images = Images.inMemory()) {
      String image = images.path("disk.qcow2").toString();
      QnbdProcess.run("create", "--extended-l2", "on", "-q", image, "1M").mustExit(0);
      assertTrue(QnbdProcess.run("info", image).out().contains("extended, with subclusters"));
      assertTrue(Shell.check("qemu-img", "info", image).contains("extended l2: true"));
      BadInputIT.assertRefused(
          QnbdProcess.run("create", "-o", "extended_l2=on,cluster_size=8k", image + "2", "1M"),
          1,
          "expected at least 16384 with extended l2 entries");
      BadInputIT.assertRefused(
          QnbdProcess.run("create", "-o", "extended_l2=on,compat=0.10", image + "2", "1M"),
          1,
          "version 2 images have no extended l2 entries");
    }
  }
}
