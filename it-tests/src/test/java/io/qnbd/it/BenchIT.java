package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;

/** {@code qnbd bench}, of images and of exports. */
final class BenchIT {
  @Test
  void loadsAnImageAndAnExport() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "8M");
      String written =
          QnbdProcess.run("bench", "-w", "-s", "64K", "-c", "128", "--pattern", "7", "" + image)
              .mustExit(0)
              .out();
      assertTrue(written.contains("writes of 64 KiB, 64 at a time, in order"), written);
      assertTrue(written.contains("128 requests in "), written);
      Images.mustBeClean(image);
      Shell.check("qemu-io", "-c", "read -P 7 0 8M", image.toString());
      try (QnbdProcess server = QnbdProcess.serve("x=" + image)) {
        String uri = server.uri("x").toString();
        String read =
            QnbdProcess.run("bench", "--json", "--random", "-d", "4", "-c", "1000", uri)
                .mustExit(0)
                .out();
        assertTrue(read.contains("\"requests\": 1000,"), read);
        assertEquals("", QnbdProcess.run("bench", "-q", "-w", "-c", "16", uri).mustExit(0).out());
        Shell.check("qemu-io", "-f", "raw", "-c", "read -P 0 0 64k", uri);
        Shell.check("qemu-io", "-f", "raw", "-c", "read -P 7 64k 64k", uri);
      }
    }
  }

  @Test
  void refusesWhatMakesNoSense() throws IOException {
    try (Images images = Images.inTempDir()) {
      String image = images.qcow2("disk.qcow2", "1M").toString();
      BadInputIT.assertRefused(QnbdProcess.run("bench", "-d", "0", image), 64, "--depth");
      BadInputIT.assertRefused(
          QnbdProcess.run("bench", "-d", "1024", "-s", "32M", image), 64, "1g at most");
      BadInputIT.assertRefused(
          QnbdProcess.run("bench", "--flush-interval", "2", image), 64, "--write");
      BadInputIT.assertRefused(QnbdProcess.run("bench", "-s", "2M", image), 1, "do not fit");
      BadInputIT.assertRefused(QnbdProcess.run("bench", image + ".gone"), 1, "gone");
    }
  }
}
