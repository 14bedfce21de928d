package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/**
 * A Debian that a machine has installed on its disk, the export, and that boots from it. Its base
 * is what debootstrap made of Debian's packages before, since that takes an emulated machine many
 * minutes; the rest, the boot loader among it, is installed in the machine.
 */
final class DebianGuestIT {
  /** What the lines of docs/virtual-machines.md find; what they install is on the second disk. */
  private static final String BEFORE_THE_PAGE =
      """
      set -e
      export PATH=/usr/sbin:/usr/bin:/sbin:/bin
      ln -s mke2fs /sbin/mkfs.ext4
      say() { echo "guest: $(cut -d ' ' -f 1 /proc/uptime) s: $*"; }
      debootstrap() {
        say "installing Debian"
        tar -xf /dev/vdb -C /mnt
        say "the base system is there"
        mount -t proc none /mnt/proc
        chroot /mnt /usr/bin/dpkg --install --recursive /packages >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
        umount /mnt/proc
        say "all packages are there"
      }
      """;

  private static final String USE_A_UNIT =
      """
      dpkg --install ./qnbd_*.deb
      printf '[[export]]\\nname = "disk"\\npath = "/var/lib/qnbd/disk.qcow2"\\ncreate = "64M"\\n' >>/etc/qnbd/qnbd.toml
      systemctl start qnbd.socket
      [ "$(systemctl is-active qnbd.service)" = inactive ]
      # The first client starts the server.
      nbd-client -N disk 127.0.0.1 10809 /dev/nbd0
      systemctl start qnbd.service
      head -c 1000000 /dev/urandom >data
      dd if=data of=/dev/nbd0 conv=fsync
      nbd-client -d /dev/nbd0
      systemctl reload qnbd.service
      nbd-client -N disk -unix /run/qnbd.sock /dev/nbd0
      cmp -n 1000000 data /dev/nbd0
      nbd-client -d /dev/nbd0
      systemctl stop qnbd.socket
      systemctl stop qnbd.service
      [ "$(systemctl show -p Result -p ExecMainStatus qnbd.service)" = $'Result=success\\nExecMainStatus=0' ]
      [ "$(stat -c %U /var/lib/qnbd/disk.qcow2)" = qnbd ]
      echo "guest: the units work"
      """;

  private static final String USE_CHANGE_AND_REBOOT =
      """
      say() { echo "guest: $(cut -d ' ' -f 1 /proc/uptime) s: $*"; }
      cd /srv
      if [ -e state ]; then
        say "up again"
        [ "$(cat state)" = after ]
        [ ! -e data ]
        [ ! -e /usr/sbin/bonnie++ ]
        exit 0
      fi
      say "up"
      bonnie++ -q -u root -d /srv -f -s 32M -r 16 -n 1
      say "bonnie++ has ended"
      head -c 4000000 /dev/urandom >data
      sha256sum data >sums
      echo before >state
      sync
      fio --name=check --directory=/srv --size=24M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 \\
        --direct=1 --fsync=64 --verify=crc32c --verify_fatal=1 --output=/srv/log &
      fio=$!
      sleep 2
      # The host answers with a snapshot of the disk.
      exec 3<>/dev/tcp/10.0.2.100/1
      cat <&3
      kill -0 $fio
      say "the snapshot was taken while fio ran"
      wait $fio || { cat log; exit 1; }
      say "fio has verified what it wrote"
      dpkg --purge bonnie++
      rm data
      echo after >state
      trap - EXIT
      systemctl --no-block reboot
      """;

  private static final String FIND_THE_OLD_STATE =
      """
      cd /srv
      [ "$(cat state)" = before ]
      sha256sum -c sums
      bonnie++ -q -u root -d /srv -f -s 16M -r 8 -n 0
      dpkg --audit
      echo "guest: all is as before"
      """;

  private static final Duration BUILD_MAX = Duration.ofMinutes(7);

  private static Images images;
  private static Path installed;

  private final Guest guest = Guest.withDebianKernel();

  @BeforeAll
  static void install() throws IOException {
    images = Images.inTempDir();
    installed = images.qcow2("debian.qcow2", "1G");
    Guest guest = Guest.withDebianKernel();
    List<String> page = Guest.linesOnPage("docs/virtual-machines.md");
    String installing = BEFORE_THE_PAGE + String.join("\n", page) + "\n";
    try (QnbdProcess qnbd = QnbdProcess.serve(installed.toString())) {
      String shown =
          guest.run(
              guest.initramfs(images.dir(), installing),
              "",
              "none",
              "-drive",
              disk(qnbd),
              "-drive",
              readOnly(guest.debianMedium(images.dir())));
      assertTrue(shown.contains("all packages are there"), shown);
      qnbd.stop();
    }
    Images.mustBeClean(installed);
  }

  @AfterAll
  static void remove() {
    images.close();
  }

  @Test
  void debianWorksRebootsAndGoesBackToASnapshotOfItsRunningDisk() throws IOException {
    Path image = overlay("goes-back.qcow2");
    Path control = images.path("control");
    try (QnbdProcess qnbd = QnbdProcess.serve("--control", control.toString(), image.toString())) {
      String snapshot =
          "%s ctl %s snapshot create goes-back.qcow2 running"
              .formatted(QnbdProcess.launcher(), control);
      String shown =
          boot(
              qnbd,
              Guest.exercise(images.dir(), USE_CHANGE_AND_REBOOT),
              ",guestfwd=tcp:10.0.2.100:1-cmd:" + snapshot);
      assertTrue(shown.contains("up again"), shown);
      qnbd.stop();
    }
    QnbdProcess.run("snapshot", "apply", image.toString(), "running").mustExit(0);
    try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
      String shown = boot(qnbd, Guest.exercise(images.dir(), FIND_THE_OLD_STATE), "");
      assertTrue(shown.contains("all is as before"), shown);
      qnbd.stop();
    }
  }

  @Test
  void theUnitsOfThePackageServeUnderTheSystemsOwnSystemd() throws IOException {
    String build = Repository.root().resolve("packaging/build-deb").toString();
    String[] printed = Shell.run(BUILD_MAX, build).mustExit(0).out().strip().split("\n", -1);
    Path deb = Path.of(printed[printed.length - 1]);
    Path image = overlay("units.qcow2");
    try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
      String shown = boot(qnbd, Guest.exercise(images.dir(), USE_A_UNIT, deb), "");
      assertTrue(shown.contains("the units work"), shown);
      qnbd.stop();
    }
  }

  /** A machine of its own for a test. */
  private static Path overlay(String name) {
    return images.qcow2(name, "1G", "backing_file=" + installed, "backing_fmt=qcow2");
  }

  private String boot(QnbdProcess qnbd, Path exercise, String network) {
    return guest.boot(
        "-drive",
        disk(qnbd),
        "-drive",
        readOnly(exercise),
        "-nic",
        "user,model=virtio-net-pci" + network);
  }

  private static String disk(QnbdProcess qnbd) {
    return "driver=raw,if=virtio,discard=unmap,file=" + qnbd.uri();
  }

  private static String readOnly(Path file) {
    return "driver=raw,if=virtio,read-only=on,file=" + file;
  }
}
