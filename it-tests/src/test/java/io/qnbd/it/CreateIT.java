package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Images that we make, judged by qemu-img. */
final class CreateIT {
  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=2M,refcount_bits=64",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full,cluster_size=4k",
        "size=64M,compat=v3"
      })
  void qemuFindsItClean(String options) throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.path("disk.qcow2");
      List<String> command = new ArrayList<>(List.of("create", "-f", "qcow2"));
      if (!options.isEmpty()) {
        command.addAll(List.of("-o", options));
      }
      command.add(image.toString());
      if (!options.contains("size=64M")) {
        command.add("64M");
      }
      QnbdProcess.run(command.toArray(String[]::new)).mustExit(0);
      Images.mustBeClean(image);
      Shell.check("qemu-io", "-f", "qcow2", "-c", "read -P 0 0 64M", image.toString());
      Shell.check("qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 2M", image.toString());
      Images.mustBeClean(image);
      String info = Shell.check("qemu-img", "info", "--output=json", image.toString());
      assertTrue(info.contains("\"virtual-size\": 67108864"), info);
      assertTrue(info.contains(options.contains("0.10") ? "\"0.10\"" : "\"1.1\""), info);
      assertTrue(info.contains("\"lazy-refcounts\": true") == options.contains("lazy"), info);
      assertEquals(
          options.contains("falloc") || options.contains("full"), takes64MiB(image), options);
    }
  }

  private static boolean takes64MiB(Path image) {
    String line = Shell.check("du", "-k", image.toString());
    return Long.parseLong(line.substring(0, line.indexOf('\t'))) >= 64 << 10;
  }

  @Test
  void rawImagesTakeTheirSpaceToo() throws IOException {
    try (Images images = Images.inMemory()) {
      for (String how : List.of("off", "falloc", "full")) {
        Path image = images.path(how + ".raw");
        QnbdProcess.run("create", "-f", "raw", "--preallocation", how, image.toString(), "67108864")
            .mustExit(0);
        assertEquals(64 << 20, Files.size(image));
        assertEquals(!how.equals("off"), takes64MiB(image), how);
      }
    }
  }

  @Test
  void aBackingFileNeedNotBeThereIfNobodyLooks() throws IOException {
    try (Images images = Images.inMemory()) {
      String image = images.path("overlay.qcow2").toString();
      String base = "later.qcow2";
      QnbdProcess.run("create", "-b", base, "-F", "qcow2", image, "8M").mustExit(1);
      QnbdProcess.run("create", "-u", "-b", base, "-F", "qcow2", image).mustExit(64);
      Shell.Result made =
          QnbdProcess.run("create", "-u", "--json", "-b", base, "-F", "qcow2", image, "8M")
              .mustExit(0);
      assertTrue(made.out().contains("\"backing-filename\": \"later.qcow2\""), made::toString);
      images.qcow2(base, "8M");
      Shell.check("qemu-io", "-c", "write -P 5 0 1M", images.path(base).toString());
      Shell.check("qemu-io", "-c", "read -P 5 0 1M", image);
    }
  }
}
