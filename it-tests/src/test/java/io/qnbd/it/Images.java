package io.qnbd.it;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;

/**
 * A directory of images for one test. Closing it is the oracle: {@code qemu-img check} must find
 * each qcow2 image that was made here clean, without even a leaked cluster.
 */
public final class Images implements AutoCloseable {
  /** A few images of the random traffic with their copies. */
  private static final long MEMORY_BYTES_MIN = 1L << 30;

  private final Path dir;
  private final List<Path> checked = new ArrayList<>();

  private Images(Path dir) {
    this.dir = dir;
  }

  public static Images inTempDir() throws IOException {
    return new Images(Files.createTempDirectory("qnbd-it"));
  }

  /**
   * Like {@link #inTempDir}, in memory where the machine has room: for tests that count on speed.
   */
  public static Images inMemory() throws IOException {
    Path memory = Path.of("/dev/shm");
    boolean room = Files.isWritable(memory) && memory.toFile().getUsableSpace() > MEMORY_BYTES_MIN;
    return room ? new Images(Files.createTempDirectory(memory, "qnbd-it")) : inTempDir();
  }

  public Path dir() {
    return dir;
  }

  public Path path(String name) {
    return dir.resolve(name);
  }

  /** Makes a qcow2 image; {@code options} are what {@code qemu-img create -o} takes. */
  public Path qcow2(String name, String size, String... options) {
    List<String> command = new ArrayList<>(List.of("qemu-img", "create", "-q", "-f", "qcow2"));
    if (options.length > 0) {
      command.addAll(List.of("-o", String.join(",", options)));
    }
    command.addAll(List.of(path(name).toString(), size));
    Shell.check(command.toArray(String[]::new));
    checked.add(path(name));
    return path(name);
  }

  /** Makes a raw file of {@code bytes} whose contents follow from {@code seed}. */
  public Path rawOfNoise(String name, int bytes, long seed) throws IOException {
    byte[] noise = new byte[bytes];
    new Random(seed).nextBytes(noise);
    Files.write(path(name), noise);
    return path(name);
  }

  /**
   * Makes a qcow2 image with the contents of a raw file, in compressed clusters when an option
   * names the compression.
   */
  public Path qcow2From(String name, Path raw, String... options) {
    List<String> command =
        new ArrayList<>(List.of("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2"));
    if (options.length > 0) {
      command.addAll(List.of("-o", String.join(",", options)));
    }
    if (String.join(",", options).contains("compression_type")) {
      command.add("-c");
    }
    command.addAll(List.of(raw.toString(), path(name).toString()));
    Shell.check(command.toArray(String[]::new));
    checked.add(path(name));
    return path(name);
  }

  /** The contents of an image, read by qemu-img. */
  public byte[] contents(Path image) throws IOException {
    Path raw = Files.createTempFile(dir, "contents", ".raw");
    Shell.check(
        "qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", image.toString(), raw.toString());
    return readAndDelete(raw);
  }

  /** The contents of an internal snapshot, read by qemu-img. */
  public byte[] snapshotContents(Path image, String snapshot) throws IOException {
    Path raw = Files.createTempFile(dir, "snapshot", ".raw");
    Shell.check(
        "qemu-img",
        "convert",
        "-q",
        "-f",
        "qcow2",
        "-l",
        "snapshot.name=" + snapshot,
        "-O",
        "raw",
        image.toString(),
        raw.toString());
    return readAndDelete(raw);
  }

  private static byte[] readAndDelete(Path file) throws IOException {
    byte[] bytes = Files.readAllBytes(file);
    Files.delete(file);
    return bytes;
  }

  /** Fails unless {@code qemu-img check} finds the image clean. */
  public static void mustBeClean(Path image) {
    Shell.run("qemu-img", "check", "-f", "qcow2", image.toString()).mustExit(0);
  }

  /** Fails unless the image is clean or has lost nothing but clusters that nobody uses. */
  public static void mustLeakAtMost(Path image) {
    Shell.Result result = Shell.run("qemu-img", "check", "-f", "qcow2", image.toString());
    if (result.exit() != 0 && result.exit() != 3) {
      throw new AssertionError("more than leaked clusters\n" + result);
    }
  }

  /** Leaves the image out of the check at the end: the test damaged it, or checks it itself. */
  public void leaveUnchecked(Path image) {
    checked.remove(image);
  }

  /** The space in bytes that the file takes on the host. */
  public static long bytesOnHost(Path file) {
    return Long.parseLong(Shell.check("stat", "-c", "%b", file.toString()).strip()) * 512L;
  }

  @Override
  public void close() {
    try {
      for (Path image : checked) {
        mustBeClean(image);
      }
    } finally {
      delete();
    }
  }

  private void delete() {
    try (Stream<Path> all = Files.walk(dir)) {
      for (Path file : all.sorted((a, b) -> b.compareTo(a)).toList()) {
        Files.deleteIfExists(file);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
