package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Images that are damaged with care, repaired by us, and judged by qemu-img. */
final class RepairIT {
  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  private interface Damage {
    void to(RandomAccessFile file) throws IOException;
  }

  /** 24 clusters of 64 KiB, written in order. */
  private static Path image(Images images) {
    Path image = images.qcow2("disk.qcow2", "64M");
    Shell.check("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1536k", image.toString());
    return image;
  }

  private static long l2Table(RandomAccessFile file) throws IOException {
    file.seek(40);
    file.seek(file.readLong());
    return file.readLong() & OFFSET_MASK;
  }

  private static long refcountBlock(RandomAccessFile file) throws IOException {
    file.seek(48);
    file.seek(file.readLong());
    return file.readLong();
  }

  private static void set(RandomAccessFile file, long at, long value) throws IOException {
    file.seek(at);
    file.writeLong(value);
  }

  private static void damage(Path image, Damage damage) throws IOException {
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      damage.to(file);
    }
  }

  @Test
  void whatIsDamagedIsCleanAfterwardsToQemuToo() throws IOException {
    List<Damage> damages =
        List.of(
            file -> set(file, refcountBlock(file) + 8, 0x0001_0000_0003_0001L), // counts
            file -> set(file, refcountBlock(file), 0),
            file -> set(file, l2Table(file), 0x50000), // a COPIED flag
            file -> set(file, l2Table(file) + 8, 1L << 50 | 1L << 63), // past the end
            file -> set(file, l2Table(file) + 16, 0x50200L | 1L << 63), // not at a cluster
            file -> {
              file.seek(48);
              set(file, file.readLong(), 1L << 45); // no refcount block
            });
    for (Damage damage : damages) {
      try (Images images = Images.inMemory()) {
        Path image = image(images);
        byte[] before = images.contents(image);
        damage(image, damage);
        QnbdProcess.run("check", image.toString()).mustExit(2);
        Shell.Result repaired =
            QnbdProcess.run("check", "--repair", "all", image.toString()).mustExit(0);
        assertTrue(repaired.out().contains("repaired "), repaired::toString);
        Images.mustBeClean(image);
        byte[] after = images.contents(image);
        // The second and third cluster are the only ones whose place was lost.
        assertArrayEquals(part(before, 0, 1), part(after, 0, 1));
        assertArrayEquals(part(before, 3, 1024), part(after, 3, 1024));
      }
    }
  }

  private static byte[] part(byte[] disk, int from, int to) {
    return Arrays.copyOfRange(disk, from << 16, to << 16);
  }

  @Test
  void leaksAreGivenBackAndNothingElseIsTouched() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = image(images);
      damage(
          image,
          file -> {
            long end = Math.ceilDiv(file.length(), 65536); // in clusters; a count has two bytes
            set(file, refcountBlock(file) + 2 * end, 0x0001_0001_0001_0001L);
            file.setLength((end + 4) << 16);
          });
      QnbdProcess.run("check", image.toString()).mustExit(3);
      Shell.Result json =
          QnbdProcess.run("check", "--json", "-r", "leaks", image.toString()).mustExit(0);
      assertTrue(json.out().contains("\"leaks-fixed\": 4"), json::toString);
      Images.mustBeClean(image);
    }
  }

  @Test
  void anImageThatIsOpenIsNotRepaired() throws IOException {
    try (Images images = Images.inMemory();
        QnbdProcess qnbd = QnbdProcess.serve(image(images).toString())) {
      QnbdProcess.run("check", "-r", "all", images.path("disk.qcow2").toString()).mustExit(1);
      qnbd.stop();
    }
  }
}
