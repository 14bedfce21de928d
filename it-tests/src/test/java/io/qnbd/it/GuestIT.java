package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/** A Linux machine whose disk is the export. */
final class GuestIT {
  private static final String ATTACH =
      """
      set -e
      port=$(sed 's/.*port=\\([0-9]*\\).*/\\1/' /proc/cmdline)
      attach() { nbd-client 10.0.2.2 $port /dev/nbd0 $*; }
      detach() { nbd-client -d /dev/nbd0; }
      """;

  private static final String WRITE_DETACH_VERIFY =
      ATTACH
          + """
          attach
          /sbin/mke2fs -q -t ext4 /dev/nbd0
          mount -t ext4 /dev/nbd0 /mnt
          for i in 1 2 3 4 5 6; do head -c 8000000 /dev/urandom >/mnt/large$i; done
          for i in $(seq 60); do head -c 3000 /dev/urandom >/mnt/small$i; done
          (cd /mnt && sha256sum large* small*) >/tmp/sums
          cp /tmp/sums /mnt/sums
          umount /mnt
          detach
          attach
          mount -t ext4 -o ro /dev/nbd0 /mnt
          cmp /tmp/sums /mnt/sums
          (cd /mnt && sha256sum -c sums >/tmp/verified) || { cat /tmp/verified; exit 1; }
          umount /mnt
          detach
          """;

  private static final String VERIFY_DELETE_TRIM =
      ATTACH
          + """
          attach -C 4
          /sbin/e2fsck -fn /dev/nbd0
          mount -t ext4 /dev/nbd0 /mnt
          (cd /mnt && sha256sum -c sums >/tmp/verified) || { cat /tmp/verified; exit 1; }
          rm /mnt/large*
          sync
          fstrim -v /mnt
          umount /mnt
          /sbin/e2fsck -fn /dev/nbd0
          detach
          """;

  private static final String OVER_TLS =
      ATTACH
          + """
          attach_tls() {
            attach -C 4 -cacertfile /tmp/ca -certfile /tmp/cert -keyfile /tmp/key -tlshostname localhost
            # The kernel has a queue for each connection.
            [ $(ls /sys/block/nbd0/mq | wc -l) = 4 ]
          }
          attach_tls
          /sbin/mke2fs -q -t ext4 /dev/nbd0
          mount -t ext4 /dev/nbd0 /mnt
          for i in 1 2 3 4; do
            head -c 4000000 /dev/urandom >/mnt/data$i && sync -d /mnt/data$i &
          done
          wait
          [ $(cat /mnt/data* | wc -c) = 16000000 ]
          (cd /mnt && sha256sum data*) >/tmp/sums
          umount /mnt
          detach
          attach_tls
          /sbin/e2fsck -fn /dev/nbd0
          mount -t ext4 -o ro /dev/nbd0 /mnt
          (cd /mnt && sha256sum -c /tmp/sums)
          umount /mnt
          detach
          """;

  private static final String INIT_ON_DISK =
      """
      set -e
      echo "guest: up from the disk"
      if [ -e /written ]; then
        sha256sum -c /sums
        cat /written
      else
        head -c 4000000 /dev/urandom >/data
        sha256sum /data >/sums
        echo "guest: found what the first boot wrote" >/written
      fi
      sync
      """;

  private final Guest guest = Guest.withDebianKernel();

  @Test
  void kernelClientMakesAFileSystemThatLastsAndGivesSpaceBackWhenTrimmed() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "1G");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        guest.run(guest.initramfs(images.dir(), WRITE_DETACH_VERIFY), "port=" + qnbd.port());
        qnbd.stop();
      }
      long full = Images.bytesOnHost(image);
      assertTrue(full > 48_000_000, "48 MB were written, the image takes " + full);
      Images.mustBeClean(image);

      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        guest.run(guest.initramfs(images.dir(), VERIFY_DELETE_TRIM), "port=" + qnbd.port());
        qnbd.stop();
      }
      long trimmed = Images.bytesOnHost(image);
      assertTrue(
          trimmed < full - 40_000_000,
          "48 MB were deleted and trimmed: before " + full + ", after " + trimmed);
    }
  }

  @Test
  void kernelClientMakesAFileSystemThatLastsOverTlsOnFourConnections() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path tls = images.path("tls");
      QnbdProcess.run("serve", "--tls-generate", tls.toString()).mustExit(0);
      Path image = images.qcow2("disk.qcow2", "64M");
      String script =
          file(tls.resolve("ca-cert.pem"), "/tmp/ca")
              + file(tls.resolve("client-cert.pem"), "/tmp/cert")
              + file(tls.resolve("client-key.pem"), "/tmp/key")
              + OVER_TLS;
      try (QnbdProcess qnbd =
          QnbdProcess.serve(
              "--tls",
              "required",
              "--tls-certificates",
              tls.toString(),
              "--tls-verify-client",
              image.toString())) {
        // With one processor the kernel uses one of the connections.
        guest.run(
            guest.initramfs(images.dir(), script),
            "port=" + qnbd.port(),
            "user,model=virtio-net-pci",
            "-smp",
            "4");
        qnbd.stop();
      }
    }
  }

  @Test
  void kernelClientAttachesAsTheManualSays() throws IOException {
    List<String> lines = Guest.linesOnPage("docs/attach.md");
    assertTrue(lines.contains("mount -t ext4 -o discard /dev/nbd0 /mnt"), lines::toString);
    // The page's address is the host's, and what is mounted works before it is unmounted.
    String script =
        """
        set -e
        ip addr add 192.0.2.15/24 dev eth0
        ln -s mke2fs /sbin/mkfs.ext4
        # All modules that the machine has are loaded.
        modprobe() { grep -q "^$1 " /proc/modules; }
        """
            + String.join("\n", lines)
                .replace("\numount", "\necho found >/mnt/it\ncat /mnt/it\numount")
            + "\n";
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "256M");
      try (QnbdProcess qnbd = QnbdProcess.serve("--listen", "127.0.0.1:10809", image.toString())) {
        String nic = "user,model=virtio-net-pci,net=192.0.2.0/24,host=192.0.2.10";
        String shown = guest.run(guest.initramfs(images.dir(), script), "", nic);
        assertTrue(shown.contains("found"), shown);
        qnbd.stop();
      }
    }
  }

  /** The line of a script that makes a copy of a text file. */
  private static String file(Path source, String target) throws IOException {
    return "cat >%s <<'END'\n%sEND\n".formatted(target, Files.readString(source));
  }

  @Test
  void machineBootsFromTheExportAndFindsWhatItWroteAtTheNextBoot() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path raw = guest.bootableDisk(images.dir(), INIT_ON_DISK);
      Path image = images.qcow2("boot.qcow2", "96M");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        String uri = qnbd.uri().toString();
        Shell.check("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw.toString(), uri);
        String drive = "driver=raw,if=virtio,discard=unmap,file=" + uri;
        assertTrue(
            guest.boot("-no-reboot", "-drive", drive, "-nic", "none").contains("up from the disk"));
        String second = guest.boot("-no-reboot", "-drive", drive, "-nic", "none");
        assertTrue(second.contains("guest: found what the first boot wrote"), second);
        qnbd.stop();
      }
    }
  }
}
