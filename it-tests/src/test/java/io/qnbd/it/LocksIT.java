package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import org.junit.jupiter.api.Test;

/** qnbd and QEMU's tools keep each other from an image that is in use, with QEMU's own locks. */
final class LocksIT {

  @Test
  void imageThatQemuHasOpenForWritingIsRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      try (Shell.Running holder = holdOpen(image, false)) {
        BadInputIT.assertRefused(QnbdProcess.run("serve", image.toString()), 1, "in use", "lock");
        BadInputIT.assertRefused(
            QnbdProcess.run("serve", "--read-only", image.toString()), 1, "in use", "lock");
        assertTrue(holder.process().isAlive(), holder::toString);
      }
    }
  }

  @Test
  void imageThatQemuHasOpenForReadingIsServedForReadingOnly() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      try (Shell.Running holder = holdOpen(image, true)) {
        BadInputIT.assertRefused(QnbdProcess.run("serve", image.toString()), 1, "in use", "lock");
        try (QnbdProcess qnbd = QnbdProcess.serve("--read-only", image.toString())) {
          Shell.check("nbdinfo", qnbd.uri().toString());
          qnbd.stop();
        }
        assertTrue(holder.process().isAlive(), holder::toString);
      }
    }
  }

  @Test
  void imageThatQnbdServesIsRefusedByQemuUnlessItsLocksAreOff() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        Shell.Result refused = Shell.run("qemu-img", "info", image.toString()).mustExit(1);
        assertTrue(refused.err().contains("lock"), refused::toString);
        Shell.run("qemu-io", "-f", "qcow2", "-c", "read 0 512", image.toString()).mustExit(1);
        Shell.check("qemu-img", "info", "-U", image.toString());
        qnbd.stop();
      }
      Shell.check("qemu-img", "info", image.toString());
    }
  }

  @Test
  void twoServersNeverServeOneImage() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      try (QnbdProcess first = QnbdProcess.serve(image.toString())) {
        BadInputIT.assertRefused(
            QnbdProcess.run("serve", "--listen", "127.0.0.1:0", image.toString()),
            1,
            "in use",
            "lock");
        first.kill();
      }
      try (QnbdProcess afterCrash = QnbdProcess.serve(image.toString())) {
        afterCrash.stop();
      }
    }
  }

  @Test
  void backingFileOfAServedImageIsNotWrittenByOthers() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path base = images.qcow2("base.qcow2", "64M");
      Path top = images.qcow2("top.qcow2", "64M", "backing_file=base.qcow2", "backing_fmt=qcow2");
      try (QnbdProcess qnbd = QnbdProcess.serve(top.toString())) {
        Shell.run("qemu-io", "-f", "qcow2", "-c", "write 0 512", base.toString()).mustExit(1);
        Shell.check("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", base.toString());
        qnbd.stop();
      }
    }
  }

  /** A qemu-nbd that has the image open; it serves nobody. */
  private static Shell.Running holdOpen(Path image, boolean readOnly) {
    String socket = image + ".sock";
    Shell.Running holder =
        readOnly
            ? Shell.start("qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", socket, image.toString())
            : Shell.start("qemu-nbd", "-t", "-f", "qcow2", "-k", socket, image.toString());
    String uri = "nbd+unix:///?socket=" + socket;
    for (int attempt = 0; Shell.run("nbdinfo", uri).exit() != 0; attempt++) {
      assertTrue(attempt < 200 && holder.process().isAlive(), holder::toString);
      Shell.pause(Duration.ofMillis(50));
    }
    assertEquals("", holder.err());
    return holder;
  }
}
