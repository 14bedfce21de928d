package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.parsers.ParserConfigurationException;
import org.junit.jupiter.api.Test;
import org.xml.sax.SAXException;

/** {@code qnbd map} beside {@code qemu-img map}, and its picture. */
final class MapIT {

  @Test
  void mapsAreThoseOfQemu() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path base = images.qcow2("base.qcow2", "6M", "cluster_size=4096");
      io(base, "write 0 70k", "write 1M 1M", "write -z 3M 300k", "discard 1100k 100k");
      Path middle =
          images.qcow2(
              "middle.qcow2", "8M", "compat=0.10", "backing_file=base.qcow2", "backing_fmt=qcow2");
      io(middle, "write 64k 64k", "write 7M 64k");
      Path top = images.qcow2("top.qcow2", "10M", "backing_file=middle.qcow2", "backing_fmt=qcow2");
      io(top, "write 2M 256k", "write -z 5M 1M", "write 9M 1M");
      Shell.check("qemu-img", "snapshot", "-c", "one", top.toString());
      io(top, "write 2M 64k", "write -z 9M 128k");
      Path prealloc = images.qcow2("prealloc.qcow2", "8M", "preallocation=metadata");
      io(prealloc, "write 1M 64k");
      Path raw = images.rawOfNoise("noise.raw", 1 << 20, 1);
      Path compressed = images.qcow2From("packed.qcow2", raw, "compression_type=zlib");
      Path zeroes = images.path("zeroes.raw");
      Files.write(zeroes, new byte[1 << 20]);
      Path packed = images.qcow2From("z.qcow2", zeroes, "compression_type=zlib");
      try (RandomAccessFile sparse = new RandomAccessFile(raw.toFile(), "rw")) {
        sparse.setLength(5 << 20);
      }
      for (Path image : new Path[] {base, middle, top, prealloc, raw, compressed, packed}) {
        mustAgree(image);
      }
      mustNameTheChain(top, "top.qcow2", "middle.qcow2", "base.qcow2");
    }
  }

  private static void mustNameTheChain(Path top, String... names) {
    String chain =
        QnbdProcess.run("info", "--backing-chain", "--json", top.toString()).mustExit(0).out();
    int at = 0;
    for (String name : names) {
      int next = chain.indexOf("/" + name + "\",\n", at);
      assertTrue(next >= 0, name + " is not in its place in " + chain);
      at = next;
    }
    assertTrue(chain.startsWith("["), chain);
    String text = QnbdProcess.run("info", "--backing-chain", top.toString()).mustExit(0).out();
    assertEquals(names.length, text.lines().filter(line -> line.startsWith("image:")).count());
  }

  /** Newer qemu-img say {@code compressed} too, at the same place. */
  private static void mustAgree(Path image) {
    String qemu = Shell.check("qemu-img", "map", "--output=json", image.toString());
    String ours = QnbdProcess.run("map", "--json", image.toString()).mustExit(0).out();
    assertEquals(plain(qemu), plain(ours), image.toString());
  }

  private static String plain(String json) {
    return json.replaceAll(", \"compressed\": (true|false)", "").strip();
  }

  private static void io(Path image, String... commands) {
    for (String command : commands) {
      Shell.check("qemu-io", "-c", command, image.toString());
    }
  }

  @Test
  void textSaysWhatIsWhereAndTheWindowIsKept() {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "4M");
      io(image, "write 1M 128k", "write -z 2M 64k");
      String all = QnbdProcess.run("map", image.toString()).mustExit(0).out();
      assertTrue(
          all.contains("128 KiB of data, 64 KiB marked as zeroes, 3.81 MiB not allocated"), all);
      assertTrue(all.contains("disk.qcow2"), all);
      String part =
          QnbdProcess.run(
                  "map",
                  "--json",
                  "--start-offset",
                  "1088k",
                  "--max-length",
                  "4k",
                  image.toString())
              .mustExit(0)
              .out();
      assertTrue(part.contains("\"start\": 1114112, \"length\": 4096, \"depth\": 0"), part);
      BadInputIT.assertRefused(
          QnbdProcess.run("map", "--start-offset", "5M", image.toString()), 64, "ends at");
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void pictureShowsEveryKindOfClusterAndNoScript()
      throws IOException, ParserConfigurationException, SAXException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      io(image, "write 0 1M");
      Shell.check("qemu-img", "snapshot", "-c", "one", image.toString());
      io(image, "write 0 512k", "write 4M 1M", "write -z 4M 64k");
      leak(image);
      images.leaveUnchecked(image);
      Path svg = images.path("disk.svg");
      Shell.Result result =
          QnbdProcess.run("map", "--svg", svg.toString(), image.toString()).mustExit(0);
      assertTrue(result.err().contains("1 leaked cluster"), result::toString);
      String text = Files.readString(svg);
      DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(svg.toFile());
      for (String kind :
          new String[] {
            ">data<",
            ">data shared with snapshots<",
            ">data of one snapshot only<",
            ">zeroes, preallocated<",
            ">L1 tables<",
            ">L2 tables<",
            ">reference counts<",
            ">snapshot table<",
            ">leaked<"
          }) {
        assertTrue(text.contains(kind), kind + " is missing in " + text);
      }
      assertFalse(text.contains("<script") || text.contains("href"), text);
      Path raw = images.rawOfNoise("noise.raw", 4096, 1);
      BadInputIT.assertRefused(
          QnbdProcess.run("map", "--svg", svg.toString(), raw.toString()), 1, "raw");
    }
  }

  /** Counts a cluster behind the end of the file as used, in the only refcount block. */
  private static void leak(Path image) throws IOException {
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      long cluster = (file.length() + 65535) / 65536;
      file.setLength((cluster + 1) * 65536);
      file.seek(0x20000 + 2 * cluster);
      file.writeShort(1);
    }
  }
}
