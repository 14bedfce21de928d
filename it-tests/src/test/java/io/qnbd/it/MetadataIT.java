package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Metadata contexts as libnbd and QEMU see them; the judge is qemu-nbd, which serves the same image
 * to the same client and must be answered alike.
 */
@Timeout(300)
final class MetadataIT {
  private static final int DISK_KIB = 8 << 10;

  /** What the disk is made of. */
  enum Shape {
    PLAIN,
    SMALL_CLUSTERS,
    OLD_VERSION,
    COMPRESSED,
    OVER_QCOW2,
    OVER_SHORTER_RAW,
    CHAIN_OF_THREE,
    SUBCLUSTERS
  }

  @ParameterizedTest
  @EnumSource
  void allocationAndDepthAreTheSameAsQemus(Shape shape) throws Exception {
    long seed = Long.getLong("qnbd.seed", shape.name().hashCode());
    try (Images images = Images.inTempDir()) {
      Path image = make(images, shape, new Random(seed));
      List<String> contexts = List.of("base:allocation", "qemu:allocation-depth");
      assertEquals(mapsOfQemu(images, image, contexts), maps(image, contexts), "seed " + seed);
    }
  }

  @Test
  void bitmapIsTheSameAsQemus() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", DISK_KIB + "K");
      Random random = new Random(7);
      scribble(image, random, 10);
      Shell.check("qemu-img", "bitmap", "--add", "-g", "32768", image.toString(), "monday");
      scribble(image, random, 6);
      List<String> contexts = List.of("qemu:dirty-bitmap:monday", "base:allocation");
      assertEquals(
          mapsOfQemu(images, image, contexts, "--bitmap=monday"),
          maps(image, contexts, "--read-only"));
    }
  }

  @Test
  void qemuReadsTheBitmapAsBlocksWithoutData() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", DISK_KIB + "K");
      Shell.check("qemu-img", "bitmap", "--add", image.toString(), "monday");
      Shell.check("qemu-io", "-c", "write 1M 128k", image.toString());
      try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
        String map =
            Shell.check(
                "qemu-img",
                "map",
                "--output=json",
                "--image-opts",
                "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=%d,%s"
                    .formatted(qnbd.port(), "x-dirty-bitmap=qemu:dirty-bitmap:monday"));
        // QEMU shows a dirty range as one without data.
        assertTrue(
            map.contains(
                "\"start\": 1048576, \"length\": 131072, \"depth\": 0, \"present\": false"),
            map);
        qnbd.stop();
      }
    }
  }

  @Test
  void listsWhatItOffers() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "1M");
      Shell.check("qemu-img", "bitmap", "--add", image.toString(), "monday");
      try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
        String info = Shell.check("nbdinfo", "--json", qnbd.uri().toString());
        for (String name :
            List.of("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:monday")) {
          assertTrue(info.contains("\"" + name + "\""), info);
        }
        qnbd.stop();
      }
    }
  }

  @Test
  void sparseCopyNeitherReadsNorWritesHoles() throws Exception {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("big.qcow2", "64G");
      Shell.check(
          "qemu-io", "-c", "write -P 7 40G 1M", "-c", "write -P 9 5G 64k", image.toString());
      Path copy = images.path("copy.raw");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        Shell.check("nbdcopy", qnbd.uri().toString(), copy.toString());
        qnbd.stop();
      }
      assertEquals(64L << 30, Files.size(copy));
      assertTrue(Images.bytesOnHost(copy) <= 4 << 20, "takes " + Images.bytesOnHost(copy));
      Shell.check(
          "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image.toString(), copy.toString());
    }
  }

  private static Path make(Images images, Shape shape, Random random) throws IOException {
    String size = DISK_KIB + "K";
    return switch (shape) {
      case PLAIN -> scribbled(images.qcow2("disk.qcow2", size), random);
      case SMALL_CLUSTERS ->
          scribbled(images.qcow2("disk.qcow2", size, "cluster_size=4096"), random);
      case OLD_VERSION -> scribbled(images.qcow2("disk.qcow2", size, "compat=0.10"), random);
      case COMPRESSED -> {
        Path raw = images.path("disk.raw");
        Shell.check("qemu-img", "create", "-q", "-f", "raw", raw.toString(), size);
        Shell.check(
            "qemu-io", "-f", "raw", "-c", "write -P 3 1M 1M", "-c", "write 3M 64k", raw.toString());
        yield scribbled(images.qcow2From("disk.qcow2", raw, "compression_type=zlib"), random);
      }
      case OVER_QCOW2 -> {
        Path base = scribbled(images.qcow2("base.qcow2", size), random);
        yield scribbled(overlay(images, "disk.qcow2", base, "qcow2", size), random);
      }
      case OVER_SHORTER_RAW -> {
        Path base = images.path("base.raw");
        Shell.check("qemu-img", "create", "-q", "-f", "raw", base.toString(), "3M");
        Shell.check("qemu-io", "-f", "raw", "-c", "write -P 3 1M 1M", base.toString());
        yield scribbled(overlay(images, "disk.qcow2", base, "raw", size), random);
      }
      case CHAIN_OF_THREE -> {
        Path base = scribbled(images.qcow2("base.qcow2", size), random);
        Path middle = scribbled(overlay(images, "middle.qcow2", base, "qcow2", size), random);
        yield scribbled(overlay(images, "disk.qcow2", middle, "qcow2", size), random);
      }
      case SUBCLUSTERS -> {
        String[] options = {"extended_l2=on", "backing_file=", "backing_fmt=qcow2"};
        Path base = images.qcow2("base.qcow2", size, options[0]);
        scribble(base, random, 40, 2);
        options[1] += base;
        Path image = images.qcow2("disk.qcow2", size, options);
        scribble(image, random, 40, 2);
        yield image;
      }
    };
  }

  private static Path overlay(Images images, String name, Path base, String format, String size) {
    return images.qcow2(name, size, "backing_file=" + base, "backing_fmt=" + format);
  }

  private static Path scribbled(Path image, Random random) {
    scribble(image, random, 12);
    return image;
  }

  private static void scribble(Path image, Random random, int steps) {
    scribble(image, random, steps, 64);
  }

  /** Writes, zeroes and discards up to 7 blocks of a size in the first 128 of the disk. */
  private static void scribble(Path image, Random random, int steps, int blockKib) {
    List<String> command = new ArrayList<>(List.of("qemu-io", "-d", "unmap"));
    for (int i = 0; i < steps; i++) {
      int blocks = random.nextInt(1, 8);
      int at = random.nextInt(128 - blocks);
      String range = at * blockKib + "k " + blocks * blockKib + "k";
      command.add("-c");
      command.add(
          switch (random.nextInt(4)) {
            case 0 -> "write -z " + range;
            case 1 -> "discard " + range;
            default -> "write -P " + random.nextInt(1, 256) + " " + range;
          });
    }
    command.add(image.toString());
    Shell.check(command.toArray(String[]::new));
  }

  private static String maps(Path image, List<String> contexts, String... options) {
    List<String> arguments = new ArrayList<>(List.of(options));
    arguments.add(image.toString());
    try (QnbdProcess qnbd = QnbdProcess.serve(arguments.toArray(String[]::new))) {
      String maps = maps(qnbd.uri().toString(), contexts);
      qnbd.stop();
      return maps;
    }
  }

  private static String mapsOfQemu(
      Images images, Path image, List<String> contexts, String... options) {
    Path socket = images.path("qemu.sock");
    List<String> command =
        new ArrayList<>(List.of("qemu-nbd", "-r", "-t", "-A", "-k", socket.toString()));
    command.addAll(List.of(options));
    command.addAll(List.of("-f", "qcow2", image.toString()));
    try (Shell.Running _ = Shell.start(command.toArray(String[]::new))) {
      long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
      while (!Files.exists(socket)) {
        if (System.nanoTime() > deadline) {
          throw new AssertionError("qemu-nbd made no socket");
        }
        Shell.pause(Duration.ofMillis(10));
      }
      return maps("nbd+unix:///?socket=" + socket, contexts);
    }
  }

  private static String maps(String uri, List<String> contexts) {
    StringBuilder maps = new StringBuilder();
    for (String context : contexts) {
      maps.append(context).append('\n');
      append(maps, Shell.check("nbdinfo", "--map=" + context, uri));
    }
    return maps.toString();
  }

  /**
   * The lines of a map, put together where QEMU makes no difference: it calls zeroes that keep
   * their space a hole, and qnbd, as the protocol says, does not.
   */
  private static void append(StringBuilder maps, String map) {
    long start = 0;
    long end = 0;
    String kind = "";
    for (String line : map.lines().toList()) {
      String[] fields = line.trim().split(" +", 4);
      String next = fields[3].endsWith("zero") ? "zeroes" : fields[3];
      if (!next.equals(kind)) {
        maps.append("%d to %d: %s%n".formatted(start, end, kind));
        start = end;
        kind = next;
      }
      assertEquals(end, Long.parseLong(fields[0]), map);
      end += Long.parseLong(fields[1]);
    }
    maps.append("%d to %d: %s%n".formatted(start, end, kind));
  }
}
