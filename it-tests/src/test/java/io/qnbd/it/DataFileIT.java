package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** External data files that QEMU and qnbd make and write, each for the other. */
final class DataFileIT {
  private static final int DISK_BYTES = (12 << 20) + 1024;

  /** Random changes, as commands of qemu-io and in an array. */
  private static List<String> changes(Random random, byte[] disk) {
    List<String> commands = new ArrayList<>();
    for (int i = 0; i < 60; i++) {
      int at = random.nextInt(disk.length / 512) * 512;
      int bytes = Math.min(disk.length - at, (1 + random.nextInt(1 << random.nextInt(12))) * 512);
      int pattern = 1 + random.nextInt(250);
      String range = " " + at + " " + bytes;
      switch (random.nextInt(4)) {
        case 0 -> {
          commands.add("write -z" + range);
          pattern = 0;
        }
        case 1 -> {
          commands.add("write -zu" + range);
          pattern = 0;
        }
        default -> commands.add("write -P " + pattern + range);
      }
      Arrays.fill(disk, at, at + bytes, (byte) pattern);
    }
    commands.add("flush");
    return commands;
  }

  private static void qemuIo(String format, List<String> commands, String image) {
    List<String> line = new ArrayList<>(List.of("qemu-io", "-f", format));
    commands.forEach(command -> line.addAll(List.of("-c", command)));
    line.add(image);
    Shell.check(line.toArray(String[]::new));
  }

  /** Made by qemu-img; {@code raw} may have more options after "on" or "off". */
  private static Path withDataFile(Images images, String raw) throws IOException {
    return images.qcow2(
        "disk.qcow2",
        Integer.toString(DISK_BYTES),
        "data_file=" + images.path("data"),
        "data_file_raw=" + raw);
  }

  private static void verify(Images images, Path image, byte[] disk, boolean raw)
      throws IOException {
    Images.mustBeClean(image);
    QnbdProcess.run("check", image.toString()).mustExit(0);
    assertArrayEquals(disk, images.contents(image), "the disk");
    if (raw) {
      // QEMU fills the disk's last cluster up.
      byte[] found = Files.readAllBytes(images.path("data"));
      assertArrayEquals(disk, Arrays.copyOf(found, disk.length), "the raw data file");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"off", "off,cluster_size=4096", "on", "on,lazy_refcounts=on"})
  void oursAndQemusChangesMix(String raw) throws IOException {
    try (Images images = Images.inMemory()) {
      boolean isRaw = raw.startsWith("on");
      Path image = withDataFile(images, raw);
      byte[] disk = new byte[DISK_BYTES];
      Random random = new Random(raw.hashCode());
      for (int round = 0; round < 2; round++) {
        qemuIo("qcow2", changes(random, disk), image.toString());
        verify(images, image, disk, isRaw);
        try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
          qemuIo("raw", changes(random, disk), qnbd.uri().toString());
          qnbd.stop();
        }
        verify(images, image, disk, isRaw);
      }
    }
  }

  @Test
  void oursIsQemusToo() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.path("ours.qcow2");
      QnbdProcess.run(
              "create",
              "--data-file",
              images.path("data").toString(),
              "-o",
              "data_file_raw=on",
              image.toString(),
              Integer.toString(DISK_BYTES))
          .mustExit(0);
      assertEquals(DISK_BYTES, Files.size(images.path("data")));
      String info = Shell.check("qemu-img", "info", image.toString());
      assertTrue(info.contains("data file raw: true"), info);
      byte[] disk = new byte[DISK_BYTES];
      Random random = new Random(4);
      verify(images, image, disk, true);
      qemuIo("qcow2", changes(random, disk), image.toString());
      verify(images, image, disk, true);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"off", "on"})
  void aDataFileIsAsLongAsTheDiskWhenThatChanges(String raw) throws IOException {
    try (Images images = Images.inMemory()) {
      Path data = images.path("data");
      Path image = withDataFile(images, raw);
      byte[] disk = new byte[DISK_BYTES];
      qemuIo("qcow2", changes(new Random(5), disk), image.toString());
      int shorter = DISK_BYTES / 3 / 512 * 512;
      QnbdProcess.run("resize", "--shrink", image.toString(), Integer.toString(shorter))
          .mustExit(0);
      assertEquals(shorter, Files.size(data));
      disk = Arrays.copyOf(disk, shorter);
      verify(images, image, disk, raw.equals("on"));
      QnbdProcess.run("resize", image.toString(), Integer.toString(DISK_BYTES)).mustExit(0);
      assertEquals(DISK_BYTES, Files.size(data));
      verify(images, image, Arrays.copyOf(disk, DISK_BYTES), raw.equals("on"));
    }
  }

  @Test
  void aDataFileIsOpenedOnlyWhereItIsAllowedAndFree() throws IOException {
    try (Images images = Images.inMemory();
        Images elsewhere = Images.inTempDir()) {
      Path data = elsewhere.path("data");
      Path image = images.qcow2("disk.qcow2", "1M", "data_file=" + data);
      images.leaveUnchecked(image);
      assertRefused("outside the image's directory", "serve", image.toString());
      assertRefused(
          "--backing-policy none forbids any", "serve", "--backing-policy", "none", "" + image);
      assertRefused(
          "is one of the images", "serve", "--data-file", image.toString(), image.toString());
      try (QnbdProcess qnbd = QnbdProcess.serve("--data-file", data.toString(), "" + image)) {
        Shell.Result locked = Shell.run("qemu-io", "-f", "raw", "-c", "write 0 512", "" + data);
        assertTrue(locked.err().contains("Failed to get"), locked.toString());
        qnbd.stop();
      }
      assertRefused(
          "no place for snapshots",
          "snapshot",
          "create",
          "--backing-policy",
          "any",
          image.toString(),
          "s");
      Files.delete(data);
      // Nobody needs the data to look at the tables.
      QnbdProcess.run("info", image.toString()).mustExit(0);
      QnbdProcess.run("check", image.toString()).mustExit(0);
      assertRefused("does not exist", "serve", "--backing-policy", "any", image.toString());
    }
  }

  private static void assertRefused(String sentence, String... arguments) {
    Shell.Result result = QnbdProcess.run(arguments).mustExit(1);
    assertTrue(result.err().contains(sentence), result.toString());
    assertEquals(1, result.err().strip().lines().count(), result.toString());
  }
}
