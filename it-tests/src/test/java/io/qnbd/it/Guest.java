package io.qnbd.it;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/**
 * A machine with Debian's kernel, emulated by QEMU without any help of the processor. The host's
 * loopback is 10.0.2.2 in it.
 */
final class Guest {
  private static final Duration RUN_MAX = Duration.ofMinutes(6);
  private static final String MEGABYTES = "512";

  private final Path kernel;

  private Guest(Path kernel) {
    this.kernel = kernel;
  }

  /** Finds the kernel, or downloads it once. */
  static Guest withDebianKernel() {
    return new Guest(Path.of(Shell.check(script("kernel")).strip()));
  }

  /** The kernel's image, for a loader. */
  Path vmlinuz() throws IOException {
    try (Stream<Path> files = Files.list(kernel.resolve("boot"))) {
      return files
          .filter(file -> file.getFileName().toString().startsWith("vmlinuz-"))
          .findFirst()
          .orElseThrow();
    }
  }

  /** Packs an initramfs that runs {@code lines} under busybox's shell and then powers off. */
  Path initramfs(Path dir, String lines) throws IOException {
    Path script = Files.writeString(dir.resolve("guest-script"), lines);
    Path packed = dir.resolve("initramfs.gz");
    Shell.check(script("initramfs"), kernel.toString(), script.toString(), packed.toString());
    return packed;
  }

  /** Makes a raw disk that the machine's firmware boots, with {@code lines} as its root's init. */
  Path bootableDisk(Path dir, String lines) throws IOException {
    Path script = Files.writeString(dir.resolve("disk-init"), lines);
    Path disk = dir.resolve("boot.raw");
    Shell.check(script("disk"), kernel.toString(), script.toString(), disk.toString());
    return disk;
  }

  /** The lines that a page of the manual has for a guest. */
  static List<String> linesOnPage(String page) throws IOException {
    return Files.readAllLines(Repository.root().resolve(page)).stream()
        .dropWhile(line -> !line.startsWith("<!-- guest: "))
        .skip(2)
        .takeWhile(line -> line.startsWith("    "))
        .map(String::strip)
        .toList();
  }

  /** Makes a second disk for a machine that installs a Debian on its first. */
  Path debianMedium(Path dir) {
    Path medium = dir.resolve("medium.tar");
    Shell.check(script("debian-medium"), kernel.toString(), medium.toString());
    return medium;
  }

  /**
   * Makes a second disk for a machine with an installed Debian, which runs {@code lines} under bash
   * in a directory with copies of the files when it is up, and then powers off.
   */
  static Path exercise(Path dir, String lines, Path... files) throws IOException {
    Path script = Files.writeString(dir.resolve("script"), lines);
    Path disk = dir.resolve("exercise.tar");
    List<String> command = new ArrayList<>(List.of("tar", "-cf", disk.toString()));
    command.addAll(List.of("-C", dir.toString(), script.getFileName().toString()));
    for (Path file : files) {
      command.addAll(List.of("-C", file.resolveSibling(".").toString()));
      command.add(file.getFileName().toString());
    }
    Shell.check(command.toArray(String[]::new));
    return disk;
  }

  /**
   * Boots the kernel with this initramfs; the script must succeed. {@code words} are added to the
   * kernel's command line.
   *
   * @return what the console showed
   */
  String run(Path initramfs, String words) throws IOException {
    return run(initramfs, words, "user,model=virtio-net-pci");
  }

  /**
   * Like {@link #run(Path, String)}, with a network of the caller's and more of QEMU's arguments.
   */
  String run(Path initramfs, String words, String nic, String... more) throws IOException {
    List<String> arguments =
        new ArrayList<>(
            List.of("-kernel", vmlinuz().toString(), "-initrd", initramfs.toString(), "-append"));
    arguments.addAll(List.of("console=ttyS0 quiet panic=-1 " + words, "-nic", nic, "-no-reboot"));
    arguments.addAll(Arrays.asList(more));
    return boot(arguments.toArray(String[]::new));
  }

  /**
   * Switches a machine on and waits until it is off; what it ran must have succeeded. It may reboot
   * unless the arguments say that it must not.
   */
  String boot(String... arguments) {
    List<String> command =
        new ArrayList<>(
            List.of("qemu-system-x86_64", "-accel", "tcg", "-m", MEGABYTES, "-nographic"));
    command.addAll(List.of("-monitor", "none"));
    command.addAll(Arrays.asList(arguments));
    Shell.Result off = Shell.run(RUN_MAX, command.toArray(String[]::new)).mustExit(0);
    if (!off.out().contains("guest: exit 0")) {
      throw new AssertionError("the guest's script failed\n" + off);
    }
    return off.out();
  }

  private static String script(String name) {
    return Repository.root().resolve(Path.of("it-tests", "guest", name)).toString();
  }
}
