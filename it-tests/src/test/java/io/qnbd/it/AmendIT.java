package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Images whose format we change, judged by qemu-img. */
final class AmendIT {
  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "compat=0.10; compat=1.1; \"compat\": \"1.1\"",
        "compat=0.10; compat=1.1,lazy_refcounts=on,refcount_bits=64; \"lazy-refcounts\": true",
        "compat=1.1; compat=0.10; \"compat\": \"0.10\"",
        "compat=1.1,cluster_size=4k; compat=0.10; \"compat\": \"0.10\"",
        "compat=1.1,lazy_refcounts=on; lazy_refcounts=off; \"lazy-refcounts\": false",
        "cluster_size=512; refcount_bits=1; \"refcount-bits\": 1",
        "refcount_bits=64; compat=0.10,refcount_bits=16; \"refcount-bits\": 16"
      })
  void qemuFindsTheSameDiskInAnotherFormat(String made, String amended, String told)
      throws IOException {
    try (Images images = Images.inMemory()) {
      Path base = images.qcow2("base.qcow2", "16M");
      Shell.check("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 16M", base.toString());
      for (List<String> backing : List.of(List.<String>of(), List.of("-b", "base.qcow2"))) {
        Path image = images.path("disk%d.qcow2".formatted(backing.size()));
        make(image, made, !backing.isEmpty());
        Path before = images.path("before.raw");
        Shell.check("qemu-img", "convert", "-O", "raw", image.toString(), before.toString());
        QnbdProcess.run("amend", "-o", amended, image.toString()).mustExit(0);
        Images.mustBeClean(image);
        Shell.check(
            "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image.toString(), before.toString());
        String info = Shell.check("qemu-img", "info", "--output=json", image.toString());
        assertTrue(info.contains(told), info);
        Shell.check("qemu-io", "-f", "qcow2", "-c", "write -P 9 3M 5M", image.toString());
        Images.mustBeClean(image);
        Files.delete(before);
      }
    }
  }

  private static void make(Path image, String options, boolean overlay) {
    if (overlay) {
      Shell.check(
          "qemu-img",
          "create",
          "-q",
          "-f",
          "qcow2",
          "-o",
          options,
          "-b",
          "base.qcow2",
          "-F",
          "qcow2",
          image.toString(),
          "16M");
    } else {
      Shell.check(
          "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image.toString(), "16M");
    }
    Shell.check(
        "qemu-io",
        "-f",
        "qcow2",
        "-c",
        "write -P 7 1M 2M",
        "-c",
        "write -z 2M 100k",
        "-c",
        "write -z -u 5M 1M",
        "-c",
        "write -P 3 9000k 300k",
        image.toString());
  }

  @Test
  void changesTheNameOfTheBackingFile() throws IOException {
    try (Images images = Images.inMemory()) {
      images.qcow2("base.qcow2", "16M");
      Path image = images.path("disk.qcow2");
      make(image, "compat=1.1", true);
      QnbdProcess.run("amend", "-o", "backing_file=moved.raw,backing_fmt=raw", image.toString())
          .mustExit(0);
      String info = Shell.check("qemu-img", "info", "-U", "--output=json", image.toString());
      assertTrue(info.contains("\"backing-filename\": \"moved.raw\""), info);
      assertTrue(info.contains("\"backing-filename-format\": \"raw\""), info);
    }
  }

  @Test
  void saysWhatCanNotBeChanged() throws IOException {
    try (Images images = Images.inMemory()) {
      String image = images.qcow2("disk.qcow2", "16M").toString();
      QnbdProcess.run("amend", "-o", "cluster_size=4k", image).mustExit(64);
      QnbdProcess.run("amend", "-o", "size=4M", image).mustExit(64);
      QnbdProcess.run("amend", image).mustExit(64);
      Shell.check("qemu-img", "bitmap", "--add", image, "monday");
      String told = QnbdProcess.run("amend", "-o", "compat=0.10", image).mustExit(1).err();
      assertEquals(1, told.lines().count(), told);
      assertTrue(told.contains("persistent bitmaps"), told);
    }
  }
}
