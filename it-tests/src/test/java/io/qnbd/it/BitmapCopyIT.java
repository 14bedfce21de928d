package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

/** {@code qnbd convert --bitmaps} beside {@code qemu-img convert --bitmaps}. */
final class BitmapCopyIT {
  private static final int BITMAPS_EXTENSION = 0x2385_2875;

  /** Two bitmaps that QEMU made, one of which records; both have something. */
  private static Path disk(Images images) {
    Path disk = images.qcow2("disk.qcow2", "64M", "cluster_size=4096");
    String file = disk.toString();
    Shell.check("qemu-img", "bitmap", "--add", "-g", "65536", file, "on");
    Shell.check("qemu-img", "bitmap", "--add", "-g", "512", file, "off");
    Shell.check("qemu-io", "-c", "write 1M 64k", "-c", "write 9M 512", file);
    Shell.check("qemu-img", "bitmap", "--disable", file, "off");
    Shell.check("qemu-io", "-c", "write 67043328 64k", "-c", "write 20M 1", file);
    return disk;
  }

  private static Shell.Result convert(String... arguments) {
    List<String> command = new ArrayList<>(List.of("convert"));
    command.addAll(Arrays.asList(arguments));
    return QnbdProcess.run(command.toArray(String[]::new));
  }

  /** What qemu-img says of the bitmaps. */
  private static String described(Path image) {
    String info = Shell.check("qemu-img", "info", image.toString());
    int from = info.indexOf("    bitmaps:");
    return from < 0 ? "none" : info.substring(from, info.indexOf("refcount bits"));
  }

  @Test
  void copiesAreThoseThatQemuMakes() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path disk = disk(images);
      Path theirs = images.path("theirs.qcow2");
      Path ours = images.path("ours.qcow2");
      Shell.check(
          ("qemu-img convert --bitmaps -O qcow2 -f qcow2 " + disk + " " + theirs).split(" "));
      convert("--bitmaps", "-o", "cluster_size=64k", disk.toString(), ours.toString()).mustExit(0);
      Images.mustBeClean(ours);
      Shell.check("qemu-img", "compare", disk.toString(), ours.toString());
      assertTrue(described(ours).contains("auto"), described(ours));
      assertEquals(described(theirs), described(ours));
      for (String bitmap : List.of("on", "off")) {
        List<String> dirty = BitmapsIT.dirtyByQemu(images, ours, bitmap);
        assertFalse(dirty.isEmpty());
        assertEquals(BitmapsIT.dirtyByQemu(images, theirs, bitmap), dirty, bitmap);
        assertEquals(dirty, BitmapsIT.dirtyAtRest(ours, bitmap));
      }
      Shell.check("qemu-io", "-c", "write 30M 1", ours.toString());
      assertTrue(BitmapsIT.dirtyAtRest(ours, "on").contains("31457280+65536"));
      assertFalse(BitmapsIT.dirtyAtRest(ours, "off").contains("31457280+512"));
    }
  }

  @Test
  void brokenOnesAreRefusedOrLeftOut() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path disk = disk(images);
      markInUse(disk);
      Path copy = images.path("copy.qcow2");
      BadInputIT.assertRefused(
          convert("--bitmaps", disk.toString(), copy.toString()), 1, "bitmap on");
      assertFalse(Files.exists(copy));
      Shell.Result warned =
          convert("--bitmaps", "--skip-broken-bitmaps", disk.toString(), copy.toString());
      warned.mustExit(0);
      assertTrue(warned.err().contains("bitmap on"), warned::toString);
      Images.mustBeClean(copy);
      assertFalse(described(copy).contains("name: on"), described(copy));
      assertEquals(BitmapsIT.dirtyAtRest(disk, "off"), BitmapsIT.dirtyByQemu(images, copy, "off"));
    }
  }

  /** In the first entry of the directory. */
  private static void markInUse(Path image) throws IOException {
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      byte[] start = new byte[4096];
      file.readFully(start);
      ByteBuffer header = ByteBuffer.wrap(start);
      int at = header.getInt(100);
      while (header.getInt(at) != BITMAPS_EXTENSION) {
        at += 8 + ((header.getInt(at + 4) + 7) & ~7);
      }
      file.seek(at + 24);
      long entry = file.readLong();
      file.seek(entry + 12);
      int flags = file.readInt();
      file.seek(entry + 12);
      file.writeInt(flags | 1);
    }
  }

  @Test
  void refusesWithASentenceBeforeAnyDataIsCopied() throws IOException {
    try (Images images = Images.inTempDir()) {
      String disk = disk(images).toString();
      String raw = images.path("raw.img").toString();
      String copy = images.path("copy.qcow2").toString();
      BadInputIT.assertRefused(convert("--bitmaps", disk, raw), 64, "qcow2");
      BadInputIT.assertRefused(convert("--bitmaps", disk, "nbd://127.0.0.1/x"), 64, "qcow2");
      BadInputIT.assertRefused(convert("--skip-broken-bitmaps", disk, copy), 64, "--bitmaps");
      BadInputIT.assertRefused(convert("--bitmaps", "-l", "s", disk, copy), 64, "snapshot");
      BadInputIT.assertRefused(
          convert("--bitmaps", "-o", "compat=0.10", disk, copy), 1, "version 2");
      Files.write(images.path("raw.img"), new byte[4096]);
      BadInputIT.assertRefused(convert("--bitmaps", "-f", "raw", raw, copy), 1, "not qcow2");
      Path longer = images.qcow2("longer.qcow2", "65M");
      BadInputIT.assertRefused(
          convert("--bitmaps", "-n", disk, longer.toString()), 1, "of the same size");
      Path same = images.qcow2("same.qcow2", "64M");
      BitmapsIT.ours("add", same.toString(), "off").mustExit(0);
      BadInputIT.assertRefused(
          convert("--bitmaps", "-n", disk, same.toString()), 1, "a bitmap named off");
      assertFalse(described(same).contains("name: on"), described(same));
      assertFalse(Files.exists(images.path("copy.qcow2")));
      convert("--bitmaps", "-n", disk, images.qcow2("empty.qcow2", "64M").toString()).mustExit(0);
      assertEquals(described(images.path("disk.qcow2")), described(images.path("empty.qcow2")));
    }
  }
}
