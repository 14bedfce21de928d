package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** {@code qnbd convert}, {@code compare} and {@code measure}, judged by qemu-img. */
final class ConvertIT {

  /** A chain of two, with a snapshot, zeroes over data, and a backing file that is shorter. */
  private static Path chain(Images images) {
    Path base = images.qcow2("base.qcow2", "5M", "cluster_size=4096");
    io(base, "write -P 1 0 700k", "write -P 2 3M 2M", "write -z 3500k 300k");
    Path top = images.qcow2("top.qcow2", "9M", "backing_file=base.qcow2", "backing_fmt=qcow2");
    io(top, "write -P 3 256k 100k", "write -z 4M 256k", "write -P 4 8M 1M");
    Shell.check("qemu-img", "snapshot", "-c", "one", top.toString());
    io(top, "write -P 5 8M 128k", "write -P 6 6M 64k");
    return top;
  }

  private static void io(Path image, String... commands) {
    for (String command : commands) {
      Shell.check("qemu-io", "-c", command, image.toString());
    }
  }

  private static Path convert(Images images, String name, String... arguments) {
    List<String> all = new ArrayList<>(List.of("convert"));
    all.addAll(Arrays.asList(arguments));
    all.add(images.path(name).toString());
    QnbdProcess.run(all.toArray(String[]::new)).mustExit(0);
    return images.path(name);
  }

  private static void mustBeTheSame(Path one, Path other) {
    Shell.check("qemu-img", "compare", one.toString(), other.toString());
  }

  @Test
  void copiesHoldTheSameInEveryFormat() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path top = chain(images);
      Path raw = convert(images, "copy.raw", top.toString());
      mustBeTheSame(top, raw);
      assertTrue(Images.bytesOnHost(raw) < 6 << 20, "holes are gone: " + Images.bytesOnHost(raw));
      Path qcow2 = convert(images, "copy.qcow2", "-o", "cluster_size=4k", raw.toString());
      mustBeTheSame(top, qcow2);
      Images.mustBeClean(qcow2);
      Path large =
          convert(images, "large.qcow2", "-m", "1", "-o", "cluster_size=2M", qcow2.toString());
      mustBeTheSame(top, large);
      Images.mustBeClean(large);
      Path packed = convert(images, "packed.qcow2", "-c", top.toString());
      mustBeTheSame(top, packed);
      Images.mustBeClean(packed);
      assertTrue(Files.size(packed) < Files.size(qcow2) / 2, "not compressed");
      Path back = convert(images, "back.img", packed.toString());
      mustBeTheSame(top, back);
      Path full = convert(images, "full.raw", "-S", "0", top.toString());
      mustBeTheSame(top, full);
      assertTrue(Images.bytesOnHost(full) >= 9 << 20, "holes: " + Images.bytesOnHost(full));
    }
  }

  @Test
  void snapshotsOverlaysAndOddSizesAreCopied() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path top = chain(images);
      Path one = convert(images, "one.raw", "-l", "one", top.toString());
      assertArrayEquals(images.snapshotContents(top, "one"), Files.readAllBytes(one));
      Path overlay =
          convert(images, "over.qcow2", "-B", "base.qcow2", "-F", "qcow2", top.toString());
      mustBeTheSame(top, overlay);
      Images.mustBeClean(overlay);
      assertTrue(Files.size(overlay) < 3 << 20, "the backing file was copied too");
      Path odd = images.rawOfNoise("odd.raw", 1_000_001, 3);
      Path oddCopy = convert(images, "odd-copy.raw", odd.toString());
      assertArrayEquals(Files.readAllBytes(odd), Files.readAllBytes(oddCopy));
      Path oddQcow2 = convert(images, "odd.qcow2", odd.toString());
      assertArrayEquals(
          Files.readAllBytes(odd), Arrays.copyOf(images.contents(oddQcow2), 1_000_001));
      // Into one that is there and holds something else.
      Path full = images.path("full.raw");
      Files.write(full, images.contents(overlay));
      io(full, "write -P 9 0 9M");
      convert(images, "full.raw", "-n", "-O", "raw", top.toString());
      mustBeTheSame(top, full);
    }
  }

  @Test
  void nbdServersAreReadAndWritten() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path top = chain(images);
      Path target = images.qcow2("target.qcow2", "10M");
      io(target, "write -P 9 0 10M");
      try (QnbdProcess server = QnbdProcess.serve("top=" + top, "target=" + target)) {
        String from = server.uri("top").toString();
        convert(images, "fetched.qcow2", from);
        QnbdProcess.run("convert", from, server.uri("target").toString()).mustExit(0);
        QnbdProcess.run("compare", from, server.uri("target").toString()).mustExit(0);
        BadInputIT.assertRefused(
            QnbdProcess.run("convert", from, server.uri("nothing").toString()), 1, "no export");
        BadInputIT.assertRefused(
            QnbdProcess.run("convert", server.uri("target").toString(), from), 1, "too few");
        server.stop();
      }
      mustBeTheSame(top, images.path("fetched.qcow2"));
      Shell.check("qemu-img", "compare", top.toString(), target.toString());
      BadInputIT.assertRefused(
          QnbdProcess.run("convert", "nbds://127.0.0.1/x", images.path("x.raw").toString()),
          64,
          "tls");
    }
  }

  @Test
  void failuresLeaveNoTargetAndNoDamage() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path top = chain(images);
      Path base = images.path("base.qcow2");
      Path target = images.path("target.raw");
      BadInputIT.assertRefused(
          QnbdProcess.run("convert", images.path("gone").toString(), target.toString()), 1, "gone");
      Shell.Result full =
          Shell.run(
              "bash",
              "-c",
              "ulimit -f 2048; exec \"$@\"",
              "-",
              QnbdProcess.launcher(),
              "convert",
              "-S",
              "0",
              top.toString(),
              target.toString());
      BadInputIT.assertRefused(full, 1, "target.raw");
      try (Stream<Path> files = Files.list(images.dir())) {
        assertFalse(files.anyMatch(file -> file.getFileName().toString().contains("target")));
      }
      BadInputIT.assertRefused(
          QnbdProcess.run("convert", top.toString(), base.toString()), 1, "--force");
      BadInputIT.assertRefused(
          QnbdProcess.run("convert", "--force", top.toString(), base.toString()), 1, "below");
      BadInputIT.assertRefused(
          QnbdProcess.run("convert", top.toString(), images.path("name").toString()), 64, "-o");
      try (RandomAccessFile file = new RandomAccessFile(images.path("old.raw").toFile(), "rw")) {
        file.setLength(4096);
      }
      convert(images, "old.raw", "--force", top.toString());
      mustBeTheSame(top, images.path("old.raw"));
    }
  }

  @Test
  void comparingSaysWhatQemuSays() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path top = chain(images);
      Path raw = convert(images, "copy.raw", top.toString());
      assertEquals(
          "the images are identical\n",
          QnbdProcess.run("compare", top.toString(), raw.toString()).out());
      try (RandomAccessFile file = new RandomAccessFile(raw.toFile(), "rw")) {
        file.setLength(12 << 20);
      }
      QnbdProcess.run("compare", "-q", top.toString(), raw.toString()).mustExit(0);
      QnbdProcess.run("compare", "-s", top.toString(), raw.toString()).mustExit(1);
      try (RandomAccessFile file = new RandomAccessFile(raw.toFile(), "rw")) {
        file.seek((11 << 20) + 77);
        file.write(1);
      }
      Shell.Result differ =
          QnbdProcess.run("compare", "--json", raw.toString(), top.toString()).mustExit(1);
      assertTrue(differ.out().contains("\"offset\": " + ((11 << 20) + 77)), differ::toString);
      Shell.run("qemu-img", "compare", raw.toString(), top.toString()).mustExit(1);
      QnbdProcess.run("compare", top.toString(), images.path("gone").toString()).mustExit(2);
    }
  }

  @Test
  void measuresAreThoseOfQemu() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path top = chain(images);
      mustMeasureAlike("-O", "qcow2", top.toString());
      mustMeasureAlike("-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=64", top.toString());
      mustMeasureAlike("-O", "raw", top.toString());
      mustMeasureAlike("-O", "qcow2", "-o", "extended_l2=on,cluster_size=64k", "--size", "3T");
      BadInputIT.assertRefused(QnbdProcess.run("measure", "-O", "qcow2"), 64, "measure either");
    }
  }

  private static void mustMeasureAlike(String... arguments) {
    List<String> qemu = new ArrayList<>(List.of("qemu-img", "measure", "--output=json"));
    List<String> ours = new ArrayList<>(List.of("measure", "--json"));
    qemu.addAll(Arrays.asList(arguments));
    ours.addAll(Arrays.asList(arguments));
    String expected = Shell.check(qemu.toArray(String[]::new));
    String answer = QnbdProcess.run(ours.toArray(String[]::new)).mustExit(0).out();
    assertEquals(plain(expected), plain(answer), ours.toString());
  }

  private static String plain(String json) {
    return json.replaceAll("\"bitmaps\": [0-9]+,", "").replaceAll("\\s", "");
  }
}
