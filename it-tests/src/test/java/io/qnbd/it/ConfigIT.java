package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** A server that is told of other exports, clients and sizes while it runs. */
final class ConfigIT {
  private static final Duration PATIENCE = Duration.ofSeconds(60);
  private static final int BLOCK_BYTES = 64 << 10;

  private static void eventually(String what, BooleanSupplier condition) {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError("not in " + PATIENCE.toSeconds() + " s: " + what);
      }
      Shell.pause(Duration.ofMillis(5));
    }
  }

  /** A client that writes, flushes and reads back until it is told to stop. */
  private static final class Traffic implements AutoCloseable {
    private final AtomicLong rounds = new AtomicLong();
    private final CompletableFuture<Void> done;
    private volatile boolean stopping;

    Traffic(URI uri) {
      done = CompletableFuture.runAsync(() -> run(uri), Thread.ofPlatform()::start);
    }

    private void run(URI uri) {
      try (NbdClient client = NbdClient.connect(uri, NbdClient.Style.GO_STRUCTURED)) {
        for (long round = 0; !stopping; round++) {
          byte[] block = new byte[BLOCK_BYTES];
          Arrays.fill(block, (byte) (1 + round));
          long offset = round % 256 * BLOCK_BYTES;
          NbdClient.await(client.write(offset, ByteBuffer.wrap(block), 0));
          NbdClient.await(client.flush());
          ByteBuffer read = ByteBuffer.allocate(BLOCK_BYTES);
          NbdClient.await(client.read(offset, read));
          assertArrayEquals(block, read.array());
          rounds.set(round);
        }
      } catch (IOException e) {
        throw new AssertionError("the traffic was disturbed", e);
      }
    }

    /** Waits for some more rounds; fails if the client did. */
    void goesOn() {
      long start = rounds.get();
      eventually("the traffic goes on", () -> done.isDone() || rounds.get() > start + 3);
      if (done.isDone()) {
        done.join();
      }
    }

    /** Stops it; fails if it was disturbed before. */
    void end() {
      stopping = true;
      done.join();
    }

    @Override
    public void close() {
      end();
    }
  }

  private static NbdClient connect(URI uri) throws IOException {
    return NbdClient.connect(uri, NbdClient.Style.GO_STRUCTURED);
  }

  private static Shell.Result ctl(Path control, String... arguments) {
    List<String> command = new ArrayList<>(List.of("ctl", control.toString()));
    command.addAll(List.of(arguments));
    return QnbdProcess.run(command.toArray(String[]::new));
  }

  private static String export(String name, Path path, String... lines) {
    return "[[export]]\nname = '%s'\npath = '%s'\n%s\n"
        .formatted(name, path.getFileName(), String.join("\n", lines));
  }

  private static Path config(Images images, String... parts) throws IOException {
    return Files.writeString(images.path("q.toml"), String.join("\n", parts));
  }

  @Test
  void aReloadChangesWhatTheFileChangesAndNothingElse() throws IOException {
    try (Images images = Images.inMemory()) {
      Path keep = images.qcow2("keep.qcow2", "64M");
      Path tune = images.qcow2("tune.qcow2", "64M");
      Path reopen = images.qcow2("reopen.qcow2", "64M");
      Path gone = images.qcow2("gone.qcow2", "64M");
      Path late = images.qcow2("late.qcow2", "32M");
      Path file =
          config(
              images,
              export("keep", keep),
              export("tune", tune, "description = 'old'"),
              export("reopen", reopen),
              export("gone", gone));
      try (QnbdProcess qnbd = QnbdProcess.serve("--config", file.toString());
          Traffic traffic = new Traffic(qnbd.uri("keep"));
          NbdClient ofTune = connect(qnbd.uri("tune"));
          NbdClient ofReopen = connect(qnbd.uri("reopen"));
          NbdClient ofGone = connect(qnbd.uri("gone"))) {
        traffic.goesOn();
        NbdClient.await(ofGone.write(0, ByteBuffer.allocate(BLOCK_BYTES), 0));
        config(
            images,
            export("keep", keep),
            export("late", late, "read-only = true"),
            export("tune", tune, "description = 'new'", "max-connections = 2"),
            export("reopen", reopen, "cache = 'writethrough'"));
        qnbd.signal("HUP");
        eventually("the reload is told", () -> qnbd.errors().contains("unchanged"));
        assertTrue(
            qnbd.errors()
                .contains(
                    "reloaded "
                        + file
                        + ": added 'late'; removed 'gone'; reopened 'reopen'; changed 'tune';"
                        + " 1 unchanged\n"),
            qnbd::errors);
        traffic.goesOn();
        NbdClient.await(ofTune.flush());
        assertThrows(IOException.class, () -> NbdClient.await(ofGone.flush()));
        assertThrows(IOException.class, () -> NbdClient.await(ofReopen.flush()));
        // Nobody has it open any more.
        Shell.check("qemu-io", "-f", "qcow2", "-c", "write 0 64k", gone.toString());
        Shell.run("nbdinfo", qnbd.uri("gone").toString()).mustExit(1);
        String size = Shell.check("nbdinfo", "--size", qnbd.uri("late").toString());
        assertEquals(32 << 20, Long.parseLong(size.strip()));
        assertTrue(
            Shell.check("nbdinfo", qnbd.uri("tune").toString()).contains("description: new"));
        try (NbdClient again = connect(qnbd.uri("reopen"))) {
          NbdClient.await(again.write(0, ByteBuffer.allocate(BLOCK_BYTES), 0));
        }
        traffic.goesOn();
        traffic.end();
        qnbd.stop();
      }
    }
  }

  @Test
  void aBrokenFileChangesNothingAndABrokenImageLeavesTheOthers() throws IOException {
    try (Images images = Images.inMemory()) {
      Path one = images.qcow2("one.qcow2", "64M");
      Path two = images.qcow2("two.qcow2", "64M");
      Path control = images.path("control");
      Path file = config(images, "control = 'control'", export("one", one));
      try (QnbdProcess qnbd = QnbdProcess.serve("-c", file.toString());
          Traffic traffic = new Traffic(qnbd.uri("one"))) {
        config(images, "control = 'control'", "[[export]]", "name = 'two'", "pth = 'two.qcow2'");
        Shell.Result broken = ctl(control, "reload").mustExit(1);
        assertTrue(
            broken.err().contains(file + ":4: pth is not known here; did you mean 'path'?"),
            broken::toString);
        traffic.goesOn();
        Shell.run("nbdinfo", qnbd.uri("two").toString()).mustExit(1);

        config(
            images,
            "control = 'control'",
            "workers = 3",
            export("one", one),
            export("absent", images.path("absent.qcow2")),
            export("two", two));
        Shell.Result partly = ctl(control, "reload").mustExit(1);
        assertTrue(partly.out().contains("added 'two'; 1 unchanged"), partly::toString);
        assertTrue(partly.out().contains("export 'absent': "), partly::toString);
        assertTrue(partly.out().contains("no such file"), partly::toString);
        assertTrue(partly.out().contains("only after the next start: workers"), partly::toString);
        traffic.goesOn();
        Shell.check("nbdinfo", qnbd.uri("two").toString());
        traffic.end();
        qnbd.stop();
      }
    }
  }

  private static String firstClientOf(Path control, String export) {
    String list = ctl(control, "clients", "--json").mustExit(0).out();
    Matcher client =
        Pattern.compile("\"id\":(\\d+),[^}]*\"export\":\"" + export + "\"").matcher(list);
    assertTrue(client.find(), list);
    return client.group(1);
  }

  @Test
  void exportsAndClientsComeAndGoOverTheControlSocket() throws IOException {
    try (Images images = Images.inMemory()) {
      Path first = images.qcow2("first.qcow2", "64M");
      Path second = images.qcow2("second.qcow2", "64M");
      Path control = images.path("control");
      try (QnbdProcess qnbd =
              QnbdProcess.serve(
                  "--listen", "127.0.0.1:0", "--control", control.toString(), first.toString());
          Traffic traffic = new Traffic(qnbd.uri("first.qcow2"))) {
        traffic.goesOn();
        ctl(control, "export", "add", "--description", "another", "more=" + second).mustExit(0);
        Shell.Result twice = ctl(control, "export", "add", "more=" + second).mustExit(1);
        assertTrue(twice.err().contains("'more' is served already"), twice::toString);
        String list = ctl(control, "exports", "--json").mustExit(0).out();
        assertTrue(list.contains("\"description\":\"another\""), list);
        assertTrue(list.contains("\"from\":\"control\""), list);
        // The only export of the start stays the default.
        assertTrue(list.indexOf("\"default\":true") < list.indexOf("more"), list);

        try (NbdClient client = connect(qnbd.uri("more"))) {
          NbdClient.await(client.write(0, ByteBuffer.allocate(BLOCK_BYTES), 0));
          String id = firstClientOf(control, "more");
          ctl(control, "client", "disconnect", id).mustExit(0);
          eventually("it is disconnected", () -> !alive(client));
          ctl(control, "client", "disconnect", "999999").mustExit(1);
        }
        try (NbdClient client = connect(qnbd.uri("more"))) {
          NbdClient.await(client.write(0, ByteBuffer.allocate(BLOCK_BYTES), 0));
          ctl(control, "export", "remove", "more").mustExit(0);
          assertFalse(alive(client));
        }
        Images.mustBeClean(second);
        Shell.run("nbdinfo", qnbd.uri("more").toString()).mustExit(1);
        ctl(control, "export", "remove", "more").mustExit(1);
        Shell.Result noFile = ctl(control, "reload").mustExit(1);
        assertTrue(noFile.err().contains("without --config"), noFile::toString);
        traffic.goesOn();
        traffic.end();
        qnbd.stop();
      }
    }
  }

  private static boolean alive(NbdClient client) {
    try {
      NbdClient.await(client.flush());
      return true;
    } catch (IOException _) {
      return false;
    }
  }

  @Test
  void aDiskGrowsWhileItIsUsed() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path control = images.path("control");
      try (QnbdProcess qnbd =
              QnbdProcess.serve(
                  "--listen", "127.0.0.1:0", "--control", control.toString(), image.toString());
          Traffic traffic = new Traffic(qnbd.uri())) {
        traffic.goesOn();
        ctl(control, "resize", "disk.qcow2", "96M").mustExit(0);
        traffic.goesOn();
        String size = Shell.check("nbdinfo", "--size", qnbd.uri().toString());
        assertEquals(96 << 20, Long.parseLong(size.strip()));
        Shell.check(
            "qemu-io",
            "-f",
            "raw",
            "-c",
            "read -P 0 64M 32M",
            "-c",
            "write -P 7 80M 1M",
            qnbd.uri().toString());
        Shell.Result shrunk = ctl(control, "resize", "disk.qcow2", "64M").mustExit(1);
        assertTrue(shrunk.err().contains("cannot shrink"), shrunk::toString);
        traffic.goesOn();
        traffic.end();
        qnbd.stop();
      }
      Shell.check("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 80M 1M", image.toString());
    }
  }

  @Test
  void whatIsWrittenToATemporaryExportVanishes() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Shell.check("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", image.toString());
      byte[] before = Files.readAllBytes(image);
      Path file = config(images, export("scratch", image, "temporary = true"));
      try (QnbdProcess qnbd = QnbdProcess.serve("--config", file.toString())) {
        Shell.check(
            "qemu-io",
            "-f",
            "raw",
            "-c",
            "write -P 2 512k 1M",
            "-c",
            "flush",
            qnbd.uri("scratch").toString());
        Shell.check(
            "qemu-io",
            "-f",
            "raw",
            "-c",
            "read -P 1 0 512k",
            "-c",
            "read -P 2 512k 1M",
            qnbd.uri("scratch").toString());
        qnbd.stop();
      }
      assertArrayEquals(before, Files.readAllBytes(image));
    }
  }
}
