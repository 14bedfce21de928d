package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Internal snapshots made, reverted to and removed by us and by qemu-img, by turns. */
final class SnapshotsIT {
  private static final int DISK_BYTES = 24 << 20;

  /** What the disk and each of its snapshots must hold. */
  private static final class Model {
    private final Random random = new Random(20261122);
    private final Map<String, byte[]> snapshots = new HashMap<>();
    private byte[] disk = new byte[DISK_BYTES];

    /** Changes some of the disk through a server of ours, or through qemu-io. */
    void change(Path image, boolean byQemu) throws IOException {
      int offset = random.nextInt(DISK_BYTES / 2) & -512;
      int pattern = 1 + random.nextInt(200);
      int bytes = (1 + random.nextInt(8 << 20)) & -512;
      Arrays.fill(disk, offset, offset + bytes, (byte) pattern);
      String write = "write -P " + pattern + " " + offset + " " + bytes;
      if (byQemu) {
        Shell.check("qemu-io", "-f", "qcow2", "-c", write, image.toString());
        return;
      }
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        Shell.check("qemu-io", "-f", "raw", "-c", write, qnbd.uri().toString());
        qnbd.stop();
      }
    }

    void verify(Images images, Path image) throws IOException {
      Images.mustBeClean(image);
      assertArrayEquals(disk, images.contents(image), "the disk");
      for (Map.Entry<String, byte[]> snapshot : snapshots.entrySet()) {
        assertArrayEquals(
            snapshot.getValue(),
            images.snapshotContents(image, snapshot.getKey()),
            "snapshot " + snapshot.getKey());
      }
    }
  }

  private static void ours(String... arguments) {
    String[] command = new String[arguments.length + 1];
    command[0] = "snapshot";
    System.arraycopy(arguments, 0, command, 1, arguments.length);
    QnbdProcess.run(command).mustExit(0);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "compat=1.1",
        "compat=0.10",
        "cluster_size=4096",
        "cluster_size=2M",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "extended_l2=on"
      })
  void oursAndQemusMix(String option) throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES), option);
      String file = image.toString();
      Model model = new Model();
      model.change(image, false);
      ours("create", file, "ours");
      model.snapshots.put("ours", model.disk.clone());
      model.change(image, true);
      model.verify(images, image);

      Shell.check("qemu-img", "snapshot", "-c", "theirs", file);
      model.snapshots.put("theirs", model.disk.clone());
      model.change(image, false);
      model.verify(images, image);

      // Each reverts to the other's.
      ours("apply", file, "theirs");
      model.disk = model.snapshots.get("theirs").clone();
      model.verify(images, image);
      model.change(image, true);
      Shell.check("qemu-img", "snapshot", "-a", "ours", file);
      model.disk = model.snapshots.get("ours").clone();
      model.change(image, false);
      model.verify(images, image);

      ours("rename", file, "ours", "renamed");
      model.snapshots.put("renamed", model.snapshots.remove("ours"));
      model.verify(images, image);

      // Each removes the other's.
      ours("delete", file, "theirs");
      model.snapshots.remove("theirs");
      model.verify(images, image);
      Shell.check("qemu-img", "snapshot", "-d", "renamed", file);
      model.snapshots.clear();
      model.change(image, false);
      model.verify(images, image);
    }
  }

  @Test
  void oneBitRefcountsHaveNoRoomForASnapshot() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES), "refcount_bits=1");
      Model model = new Model();
      model.change(image, false);
      BadInputIT.assertRefused(
          QnbdProcess.run("snapshot", "create", image.toString(), "one"), 1, "refcounts");
      model.verify(images, image);
    }
  }

  /** A client keeps writing a counter over the disk; each snapshot must be a moment of that. */
  @Test
  void snapshotsOfAServedImageAreMoments() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES));
      Path control = images.path("control");
      int slots = 64;
      int slotBytes = DISK_BYTES / slots;
      try (QnbdProcess qnbd =
              QnbdProcess.serve(
                  "--control", control.toString(), "--listen", "127.0.0.1:0", image.toString());
          NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
        int round = 0;
        for (String name : List.of("a", "b", "c", "d")) {
          CompletableFuture<Shell.Result> taken =
              CompletableFuture.supplyAsync(() -> ctl(control, "create", name));
          while (!taken.isDone()) {
            round = writeInOrder(client, round, slots, slotBytes);
          }
          taken.join().mustExit(0);
          if (name.equals("c")) {
            ctl(control, "delete", "b").mustExit(0);
          }
        }
        String listed = ctl(control, "list").mustExit(0).out();
        assertTrue(listed.contains("a") && listed.contains("d"), listed);
        qnbd.stop();
      }
      Images.mustBeClean(image);
      for (String name : List.of("a", "c", "d")) {
        mustBeAMoment(images.snapshotContents(image, name), slots, slotBytes);
      }
      assertFalse(Shell.check("qemu-img", "snapshot", "-l", image.toString()).contains(" b "));
    }
  }

  /** One after the other, each acknowledged: the slots hold ever higher numbers. */
  private static int writeInOrder(NbdClient client, int round, int slots, int slotBytes)
      throws IOException {
    for (int slot = 0; slot < slots; slot++) {
      ByteBuffer number = ByteBuffer.allocate(512);
      number.putInt(0, round * slots + slot + 1);
      NbdClient.await(client.write((long) slot * slotBytes, number, 0));
    }
    return round + 1;
  }

  /** Numbers rise up to one slot and are, from the next on, those of the round before. */
  private static void mustBeAMoment(byte[] disk, int slots, int slotBytes) {
    ByteBuffer bytes = ByteBuffer.wrap(disk);
    int highest = 0;
    for (int slot = 0; slot < slots; slot++) {
      highest = Math.max(highest, bytes.getInt(slot * slotBytes));
    }
    for (int slot = 0; slot < slots; slot++) {
      int last = (highest - 1) % slots; // the slot written last
      int expected =
          slot <= last ? highest - (last - slot) : Math.max(0, highest - (last - slot) - slots);
      assertEquals(expected, bytes.getInt(slot * slotBytes), "slot " + slot + " of " + highest);
    }
  }

  private static Shell.Result ctl(Path control, String action, String... names) {
    String[] command = {"ctl", control.toString(), "snapshot", action, "disk.qcow2"};
    String[] whole = Arrays.copyOf(command, command.length + names.length);
    System.arraycopy(names, 0, whole, command.length, names.length);
    return QnbdProcess.run(whole);
  }

  @Test
  void servesASnapshotReadOnly() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES));
      Model model = new Model();
      model.change(image, false);
      ours("create", image.toString(), "then");
      byte[] then = model.disk.clone();
      model.change(image, false);
      try (QnbdProcess qnbd = QnbdProcess.serve("--snapshot", "then", image.toString())) {
        Path copy = images.path("copy.raw");
        Shell.check("nbdcopy", qnbd.uri().toString(), copy.toString());
        assertArrayEquals(then, Files.readAllBytes(copy));
        Shell.run("qemu-io", "-f", "raw", "-c", "write 0 512", qnbd.uri().toString()).mustExit(1);
        qnbd.stop();
      }
      model.verify(images, image);
    }
  }

  /** Dirty and wrong after a crash: our next open makes the refcounts right again. */
  @Test
  void lazyRefcountsAreRebuiltAfterAKill() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", Integer.toString(DISK_BYTES), "lazy_refcounts=on");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        Shell.check(
            "qemu-io", "-f", "raw", "-c", "write -P 7 0 4M", "-c", "flush", qnbd.uri().toString());
        qnbd.kill();
      }
      assertTrue(QnbdProcess.run("info", image.toString()).mustExit(0).out().contains("dirty"));
      Model model = new Model();
      Arrays.fill(model.disk, 0, 4 << 20, (byte) 7);
      model.change(image, false);
      model.verify(images, image);
    }
  }
}
