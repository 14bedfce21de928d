package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
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

/** Persistent dirty bitmaps between us and QEMU, and what they are for. */
@Timeout(300)
final class BitmapsIT {
  private static final String DIRTY = "qemu:dirty-bitmap:";

  static Shell.Result ours(String... arguments) {
    List<String> command = new ArrayList<>(List.of("bitmap"));
    command.addAll(List.of(arguments));
    return QnbdProcess.run(command.toArray(String[]::new));
  }

  private static Shell.Result ctl(Path control, String... arguments) {
    List<String> command = new ArrayList<>(List.of("ctl", control.toString(), "bitmap"));
    command.addAll(List.of(arguments));
    return QnbdProcess.run(command.toArray(String[]::new));
  }

  private static void write(String uri, String... commands) {
    List<String> command = new ArrayList<>(List.of("qemu-io", "-f", "raw"));
    for (String each : commands) {
      command.addAll(List.of("-c", each));
    }
    command.add(uri);
    Shell.check(command.toArray(String[]::new));
  }

  /** The dirty ranges as "offset+length", joined. */
  private static List<String> dirty(String uri, String bitmap) {
    List<String> ranges = new ArrayList<>();
    long start = 0;
    long end = -1;
    for (String line : Shell.check("nbdinfo", "--map=" + DIRTY + bitmap, uri).lines().toList()) {
      String[] fields = line.trim().split(" +", 4);
      long at = Long.parseLong(fields[0]);
      if (fields[2].equals("1")) {
        if (at == end) {
          ranges.removeLast();
        } else {
          start = at;
        }
        end = at + Long.parseLong(fields[1]);
        ranges.add(start + "+" + (end - start));
      }
    }
    return ranges;
  }

  static List<String> dirtyAtRest(Path image, String bitmap) {
    try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
      List<String> ranges = dirty(qnbd.uri().toString(), bitmap);
      qnbd.stop();
      return ranges;
    }
  }

  @Test
  void whatQemuMadeWeKeepUpToDateAndQemuBelieves() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      String file = image.toString();
      Shell.check("qemu-img", "bitmap", "--add", "-g", "65536", file, "on");
      Shell.check("qemu-img", "bitmap", "--add", "--disable", file, "off");
      Shell.check("qemu-io", "-c", "write 1M 64k", file);
      List<String> expected = List.of("1048576+65536", "9437184+131072", "67043328+65536");
      try (QnbdProcess qnbd = QnbdProcess.serve(file)) {
        String uri = qnbd.uri().toString();
        write(uri, "write 9M 65k", "write -z 65472k 64k");
        assertEquals(expected, dirty(uri, "on"));
        assertEquals(List.of(), dirty(uri, "off"));
        qnbd.stop();
      }
      Images.mustBeClean(image);
      String info = Shell.check("qemu-img", "info", file);
      assertTrue(info.contains("name: on") && info.contains("name: off"), info);
      assertFalse(info.contains("in-use"), info);
      // QEMU loads it, adds to it, and stores it.
      Shell.check("qemu-io", "-c", "write 20M 1", file);
      assertEquals(
          List.of("1048576+65536", "9437184+131072", "20971520+65536", "67043328+65536"),
          dirtyAtRest(image, "on"));
      Shell.check("qemu-img", "bitmap", "--merge", "on", file, "off");
      Shell.check("qemu-img", "bitmap", "--remove", file, "on");
      assertEquals(4, dirtyAtRest(image, "off").size());
      Images.mustBeClean(image);
    }
  }

  @Test
  void whatWeMadeQemuKeepsUpToDate() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      String file = image.toString();
      ours("add", file, "a").mustExit(0);
      ours("add", "-g", "4K", "--disabled", file, "b").mustExit(0);
      Images.mustBeClean(image);
      Shell.check("qemu-io", "-c", "write 3M 100k", file);
      assertEquals(List.of("3145728+131072"), dirtyAtRest(image, "a"));
      ours("merge", file, "b", "a").mustExit(0);
      ours("clear", file, "a").mustExit(0);
      ours("disable", file, "a").mustExit(0);
      ours("enable", file, "b").mustExit(0);
      Shell.check("qemu-io", "-c", "write 0 512", file);
      assertEquals(List.of(), dirtyAtRest(image, "a"));
      assertEquals(List.of("0+4096", "3145728+131072"), dirtyAtRest(image, "b"));
      ours("remove", file, "a").mustExit(0);
      String list = ours("list", "--json", file).mustExit(0).out();
      assertTrue(list.contains("\"name\" : \"b\"") || list.contains("\"name\": \"b\""), list);
      assertTrue(QnbdProcess.run("info", file).mustExit(0).out().contains("bitmaps:"));
      ours("remove", file, "b").mustExit(0);
      assertEquals("no bitmaps", ours("list", file).mustExit(0).out().strip());
      Images.mustBeClean(image);
      assertFalse(Shell.check("qemu-img", "info", file).contains("bitmaps"));
    }
  }

  /** Writes through both, read through both, merged by both. */
  @Test
  void qemuSaysTheSameOfWhatBothRecordedAndMerged() throws IOException {
    Random random = new Random(Long.getLong("qnbd.seed", 6));
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      String file = image.toString();
      Shell.check("qemu-img", "bitmap", "--add", "-g", "512", file, "theirs");
      ours("add", "-g", "128K", file, "ours").mustExit(0);
      for (int round = 0; round < 2; round++) {
        try (QnbdProcess qnbd = QnbdProcess.serve(file)) {
          write(qnbd.uri().toString(), changes(random));
          qnbd.stop();
        }
        List<String> command = new ArrayList<>(List.of("qemu-io", "-f", "qcow2"));
        for (String change : changes(random)) {
          command.addAll(List.of("-c", change));
        }
        command.add(file);
        Shell.check(command.toArray(String[]::new));
      }
      Shell.check(
          ("qemu-img bitmap --add --disable -g 65536 --merge theirs --merge ours " + file + " m1")
              .split(" "));
      ours("add", "-g", "64K", "--disabled", file, "m2").mustExit(0);
      ours("merge", file, "m2", "theirs").mustExit(0);
      ours("merge", file, "m2", "ours").mustExit(0);
      for (String bitmap : List.of("theirs", "ours", "m1", "m2")) {
        List<String> found = dirtyAtRest(image, bitmap);
        assertFalse(found.isEmpty());
        assertEquals(dirtyByQemu(images, image, bitmap), found, bitmap);
      }
      assertEquals(dirtyAtRest(image, "m1"), dirtyAtRest(image, "m2"));
      Images.mustBeClean(image);
    }
  }

  private static String[] changes(Random random) {
    String[] changes = new String[12];
    for (int i = 0; i < changes.length; i++) {
      int sectors = 1 + random.nextInt(i % 2 == 0 ? 8 : 2000);
      long at = random.nextInt((64 << 11) - sectors) * 512L;
      String zeroes = random.nextInt(3) == 0 ? "-z " : "";
      changes[i] = "write %s%d %d".formatted(zeroes, at, sectors * 512);
    }
    return changes;
  }

  static List<String> dirtyByQemu(Images images, Path image, String bitmap) throws IOException {
    Path socket = images.path(bitmap + ".sock");
    Files.deleteIfExists(socket); // of the time before
    try (Shell.Running _ =
        Shell.start(
            "qemu-nbd",
            "-r",
            "-t",
            "-B",
            bitmap,
            "-k",
            socket.toString(),
            "-f",
            "qcow2",
            image.toString())) {
      long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
      while (!Files.exists(socket)) {
        assertTrue(System.nanoTime() < deadline, "qemu-nbd made no socket");
        Shell.pause(Duration.ofMillis(10));
      }
      return dirty("nbd+unix:///?socket=" + socket, bitmap);
    }
  }

  @Test
  void theDiskShrinksAndQemuBelievesItsBitmaps() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      String file = image.toString();
      ours("add", "-g", "512", file, "fine").mustExit(0);
      Shell.check("qemu-io", "-c", "write 1M 64k", "-c", "write 40M 64k", file);
      QnbdProcess.run("resize", "--shrink", file, "20M").mustExit(0);
      Images.mustBeClean(image);
      Shell.check("qemu-io", "-c", "write 2M 512", file);
      assertEquals(List.of("1048576+65536", "2097152+512"), dirtyByQemu(images, image, "fine"));
      assertEquals(List.of("1048576+65536", "2097152+512"), dirtyAtRest(image, "fine"));
    }
  }

  @Test
  void refusesWithASentence() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "1M");
      Path old = images.qcow2("old.qcow2", "1M", "compat=0.10");
      BadInputIT.assertRefused(ours("remove", image.toString(), "x"), 1, "no bitmap named x");
      BadInputIT.assertRefused(ours("add", old.toString(), "x"), 1, "version 2");
      BadInputIT.assertRefused(ours("add", "-g", "5000", image.toString(), "x"), 1, "power of two");
      BadInputIT.assertRefused(
          ours("add", "--disabled", "--replace", "y", image.toString(), "x"), 64, "--replace");
    }
  }

  @Test
  void aKilledServerLeavesABitmapThatNobodyBelieves() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "16M");
      String file = image.toString();
      ours("add", file, "on").mustExit(0);
      ours("add", "--disabled", file, "off").mustExit(0);
      try (QnbdProcess qnbd = QnbdProcess.serve(file)) {
        write(qnbd.uri().toString(), "write 9M 64k");
        qnbd.kill();
      }
      String list = ours("list", file).mustExit(0).out();
      assertTrue(list.lines().anyMatch(line -> line.matches("on .*inconsistent")), list);
      assertTrue(list.lines().anyMatch(line -> line.matches("off .*disabled")), list);
      String info = Shell.check("qemu-img", "info", file);
      assertTrue(info.contains("in-use"), info);
      Images.mustLeakAtMost(image);
      ours("remove", file, "on").mustExit(0);
      Images.mustLeakAtMost(image);
      QnbdProcess.run("check", "--repair", "leaks", file).mustExit(0);
      assertTrue(ours("list", file).mustExit(0).out().contains("off "));
    }
  }

  /** docs/backup.md, word for word. */
  @Test
  void incrementalBackupsOfADiskInUse() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path control = images.path("control");
      Path backup = images.path("backup.raw");
      Shell.check("qemu-io", "-c", "write -P 1 0 5M", image.toString());
      String script = Repository.root().resolve("docs/copy-dirty.sh").toString();
      try (QnbdProcess qnbd =
          QnbdProcess.serve("--control", control.toString(), image.toString())) {
        String uri = qnbd.uri().toString();
        ctl(control, "add", "disk.qcow2", "monday").mustExit(0);
        Shell.check("nbdcopy", uri, backup.toString());
        write(uri, "write -P 2 1M 200k", "write -P 3 40M 64k", "write -z 2M 1M");

        ctl(control, "add", "--replace", "monday", "disk.qcow2", "tuesday").mustExit(0);
        assertEquals(3, dirty(uri, "monday").size());
        write(uri, "write -P 4 50M 1M"); // tuesday's
        assertEquals(List.of("52428800+1048576"), dirty(uri, "tuesday"));
        Shell.check(script, uri, "monday", backup.toString());
        ctl(control, "remove", "disk.qcow2", "monday").mustExit(0);

        QnbdProcess.run("ctl", control.toString(), "resize", "disk.qcow2", "80M").mustExit(0);
        write(uri, "write -P 5 63M 1M");
        ctl(control, "add", "--replace", "tuesday", "disk.qcow2", "wednesday").mustExit(0);
        Shell.check(script, uri, "tuesday", backup.toString());
        ctl(control, "disable", "disk.qcow2", "wednesday").mustExit(0);
        String list = ctl(control, "list", "disk.qcow2").mustExit(0).out();
        assertTrue(list.contains("tuesday") && list.contains("wednesday"), list);
        ctl(control, "merge", "disk.qcow2", "wednesday", "tuesday").mustExit(0);
        ctl(control, "clear", "disk.qcow2", "tuesday").mustExit(0);
        assertEquals(List.of("52428800+1048576", "66060288+1048576"), dirty(uri, "wednesday"));
        assertEquals(List.of(), dirty(uri, "tuesday"));
        ctl(control, "remove", "disk.qcow2", "monday").mustExit(1);
        qnbd.stop();
      }
      Images.mustBeClean(image);
      assertArrayEquals(images.contents(image), Files.readAllBytes(backup));
    }
  }
}
