package io.qnbd.server.config;

import com.code_intelligence.jazzer.junit.FuzzTest;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Configuration files that a fuzzer makes up. */
final class ConfigFuzzTest {
  @FuzzTest
  void fileIsReadOrRefused(byte[] bytes) throws IOException {
    Path file = Files.createTempFile("qnbd-fuzz", ".toml");
    try {
      Files.write(file, bytes);
      ConfigFile.read(file);
    } catch (IOException e) {
      if (String.valueOf(e.getMessage()).length() < 10) {
        throw new AssertionError("no sentence", e);
      }
    } finally {
      Files.delete(file);
    }
  }
}
