package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.function.BooleanSupplier;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** How the server is started, how it tells that it is ready, and what ends it. */
final class LifecycleIT {
  private static final Duration PATIENCE = Duration.ofSeconds(60);
  private static final int USAGE = 64;
  private static final Pattern URI_PRINTED = Pattern.compile("nbd(\\+unix)?://\\S+");

  /** Waits for a state of the outside world. */
  private static void eventually(String what, BooleanSupplier condition) {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError("not in " + PATIENCE.toSeconds() + " s: " + what);
      }
      Shell.pause(Duration.ofMillis(10));
    }
  }

  private static String[] serve(String... arguments) {
    List<String> command = new ArrayList<>(List.of(QnbdProcess.launcher(), "serve"));
    command.addAll(Arrays.asList(arguments));
    return command.toArray(String[]::new);
  }

  /** Starts what prints the ready line, and returns where clients connect. */
  private static URI awaitUri(Shell.Running running) {
    assertTrue(QnbdProcess.awaitReadyOrEnd(running), running::toString);
    Matcher printed = URI_PRINTED.matcher(running.out());
    assertTrue(printed.find(), running::toString);
    return URI.create(printed.group());
  }

  // -- what makes it quick

  /** Classes of an older format Java loads and verifies anew at each start. */
  @Test
  void everyLibraryHasClassesThatJavaKeepsForAQuickStart() throws IOException {
    Path app = Repository.root().resolve("server/target/app");
    List<String> tooOld = new ArrayList<>();
    try (DirectoryStream<Path> jars = Files.newDirectoryStream(app, "*.jar")) {
      for (Path jar : jars) {
        try (JarFile library = new JarFile(jar.toFile())) {
          for (JarEntry entry : Collections.list(library.entries())) {
            if (entry.getName().endsWith(".class") && majorVersion(library, entry) < 50) {
              tooOld.add(jar.getFileName() + ": " + entry.getName());
            }
          }
        }
      }
    }
    assertEquals(List.of(), tooOld);
  }

  private static int majorVersion(JarFile library, JarEntry entry) throws IOException {
    try (DataInputStream in = new DataInputStream(library.getInputStream(entry))) {
      in.skipNBytes(6); // the magic number and the minor version
      return in.readUnsignedShort();
    }
  }

  // -- what it tells

  @Test
  void debugTellsWhatClientsDoAndNothingElseDoes() throws IOException {
    String event = " DEBUG Connection - client ";
    String information = "nbdinfo --size \"$uri\"";
    try (Images images = Images.inTempDir()) {
      String image = images.qcow2("disk.qcow2", "64M").toString();
      Shell.Result told = QnbdProcess.run("--debug", "serve", "--run", information, image);
      told.mustExit(0);
      assertTrue(told.err().contains(event), told::toString);
      Shell.Result untold = QnbdProcess.run("--verbose", "serve", "--run", information, image);
      untold.mustExit(0);
      assertFalse(untold.err().contains(event), untold::toString);
    }
  }

  // -- run

  @Test
  void runServesACommandOnAPrivateSocketAndEndsWithItsCode() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Shell.Result result =
          QnbdProcess.run(
              "serve",
              "--run",
              "nbdinfo --size \"$uri\" && nbdinfo --size \"$nbd\" &&"
                  + " stat -c %a \"$unixsocket\" \"${unixsocket%/*}\" &&"
                  + " echo \"$unixsocket|$port|$exportname|${tls-unset}|$NOTIFY_SOCKET\"; exit 7",
              image.toString());
      result.mustExit(7);
      List<String> lines = result.out().lines().toList();
      assertEquals(List.of("67108864", "67108864", "600", "700"), lines.subList(0, 4));
      assertEquals(5, lines.size(), result::toString); // no ready line among the command's
      assertTrue(lines.get(4).matches("/tmp/[^|]+/socket\\|\\|\\|unset\\|"), result::toString);
      Path socket = Path.of(lines.get(4).substring(0, lines.get(4).indexOf('|')));
      assertFalse(Files.exists(socket.resolveSibling("")), "the private directory is left");
      assertEquals("", result.err());
    }
  }

  @Test
  void runTellsTheCommandThePortAndTheExport() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path other = images.qcow2("other.qcow2", "32M");
      Shell.Result result =
          QnbdProcess.run(
              "serve",
              "--listen",
              ":0",
              "--run",
              "nbdinfo --size \"$uri\"; echo \"$uri|$port|$unixsocket|$exportname\"",
              "a b=" + other,
              image.toString());
      List<String> lines = result.mustExit(0).out().lines().toList();
      assertEquals("33554432", lines.getFirst(), result::toString);
      assertTrue(
          lines.get(1).matches("nbd://127\\.0\\.0\\.1:([0-9]+)/a%20b\\|\\1\\|\\|a b"),
          result::toString);
    }
  }

  @Test
  void commandThatASignalEndsGives128AndTheNumber() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      QnbdProcess.run("serve", "--run", "kill -KILL $$", image.toString()).mustExit(128 + 9);
    }
  }

  /** What the command writes when it is asked to end is in the image. */
  @Test
  void sigtermAsksTheCommandToEndWhileItIsServed() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path started = images.path("started");
      String command =
          "trap 'qemu-io -f raw -c \"write -P 7 0 4096\" \"$uri\"; exit 5' TERM;"
              + " sleep 100 & echo > "
              + started
              + "; wait";
      try (Shell.Running running = Shell.start(serve("--run", command, image.toString()))) {
        eventually("the command runs", () -> Files.exists(started));
        running.signal("TERM");
        running.await(PATIENCE).mustExit(5);
        assertTrue(running.out().contains("wrote 4096/4096"), running::toString);
      }
      assertEquals(7, images.contents(image)[0]);
    }
  }

  // -- what ends it

  @Test
  void onceEndsWhenTheLastClientHasGone() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      try (Shell.Running running =
          Shell.start(serve("--listen", "127.0.0.1:0", "--once", image.toString()))) {
        URI uri = awaitUri(running);
        Shell.check("nbd-client", "-l", "127.0.0.1", Integer.toString(uri.getPort()));
        NbdClient last = NbdClient.connect(uri, NbdClient.Style.GO_SIMPLE);
        NbdClient.connect(uri, NbdClient.Style.GO_STRUCTURED).close();
        NbdClient.await(last.write(0, ByteBuffer.wrap(new byte[] {1}), 0));
        assertTrue(running.process().isAlive(), running::toString);
        last.close();
        running.await(PATIENCE).mustExit(0);
      }
      assertEquals(1, images.contents(image)[0]);
    }
  }

  /** The pid file goes with an orderly end only. */
  @Test
  void exitWithParentEndsInOrderWhenTheParentIsKilled() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path pidFile = images.path("q.pid");
      String[] serve =
          serve(
              "--exit-with-parent",
              "--pid-file",
              pidFile.toString(),
              "--listen",
              "127.0.0.1:0",
              image.toString());
      List<String> command = new ArrayList<>(List.of("sh", "-c", "\"$@\" & wait", "sh"));
      command.addAll(Arrays.asList(serve));
      try (Shell.Running parent = Shell.start(command.toArray(String[]::new))) {
        URI uri = awaitUri(parent);
        String pid = Files.readString(pidFile).strip();
        try (NbdClient client = NbdClient.connect(uri, NbdClient.Style.GO_SIMPLE)) {
          NbdClient.await(client.write(0, ByteBuffer.wrap(new byte[] {9}), 0));
          parent.signal("KILL");
          parent.await(PATIENCE);
          eventually("the pid file is gone", () -> !Files.exists(pidFile));
          eventually("the process is gone", () -> hasEnded(pid));
          client.abort();
        }
      }
      assertEquals(9, images.contents(image)[0]);
    }
  }

  /** Nobody may have asked yet how an orphan ended: then it is a zombie, state Z. */
  private static boolean hasEnded(String pid) {
    try {
      String stat = Files.readString(Path.of("/proc", pid, "stat"));
      return stat.charAt(stat.lastIndexOf(')') + 2) == 'Z';
    } catch (IOException _) {
      return true;
    }
  }

  @Test
  void exitWithParentDoesNotStartForAParentThatHasGone() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      List<String> command =
          new ArrayList<>(List.of("env", "QNBD_JAVA_OPTS=-Dqnbd.parent.pid=999999999"));
      command.addAll(Arrays.asList(serve("--exit-with-parent", image.toString())));
      BadInputIT.assertRefused(
          Shell.run(PATIENCE, command.toArray(String[]::new)), 1, "has ended already");
    }
  }

  // -- who is told

  @Test
  void pidFileIsThereWhenItIsReadyAndGoneAfterwards() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path pidFile = Files.writeString(images.path("q.pid"), "stale\n");
      try (QnbdProcess qnbd =
          QnbdProcess.serve("--pid-file", pidFile.toString(), image.toString())) {
        assertEquals(qnbd.pid() + "\n", Files.readString(pidFile));
        qnbd.stop();
      }
      assertFalse(Files.exists(pidFile));
      BadInputIT.assertRefused(
          QnbdProcess.run(
              "serve",
              "--listen",
              "127.0.0.1:0",
              "--pid-file",
              images.path("missing").resolve("q.pid").toString(),
              image.toString()),
          1,
          "pid file");
    }
  }

  @Test
  void serviceManagerIsToldOfReadyAndStop() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path socket = images.path("notify");
      String receiver =
          "$| = 1; $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die;"
              + " do { $s->recv($m, 9000); print \"$m\\n\" } until $m =~ /STOPPING/";
      try (Shell.Running manager =
          Shell.start("perl", "-MIO::Socket::UNIX", "-e", receiver, socket.toString())) {
        eventually("somebody listens", () -> Files.exists(socket));
        List<String> command = new ArrayList<>(List.of("env", "NOTIFY_SOCKET=" + socket));
        command.addAll(Arrays.asList(serve("--listen", "127.0.0.1:0", image.toString())));
        try (Shell.Running running = Shell.start(command.toArray(String[]::new))) {
          String uri = awaitUri(running).toString();
          eventually("it is told", () -> manager.out().contains(uri));
          assertTrue(
              manager
                  .out()
                  .startsWith("READY=1\nMAINPID=%d\nSTATUS=".formatted(running.process().pid())),
              manager::toString);
          assertFalse(manager.out().contains("STOPPING"), manager::toString);
          running.signal("TERM");
          running.await(PATIENCE).mustExit(0);
        }
        manager.await(PATIENCE).mustExit(0);
        assertTrue(manager.out().endsWith("STOPPING=1\n"), manager::toString);
      }
    }
  }

  // -- where it listens

  @Test
  void hostsAndSocketsAreListenedOnTogether() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path socket = images.path("q.sock");
      try (QnbdProcess qnbd =
          QnbdProcess.serve(
              "--listen",
              "localhost:0",
              "--listen",
              ":0",
              "--unix",
              socket.toString(),
              image.toString())) {
        assertEquals("67108864\n", Shell.check("nbdinfo", "--size", qnbd.uri().toString()));
        assertEquals(
            "67108864\n",
            Shell.check("nbdinfo", "--size", "nbd://localhost:" + qnbd.uri().getPort()));
        assertEquals(
            "67108864\n", Shell.check("nbdinfo", "--size", "nbd+unix:///?socket=" + socket));
        qnbd.stop();
      }
      assertFalse(Files.exists(socket));
    }
  }

  @ParameterizedTest
  @CsvSource({"000, '', rw-------", "000, 0660, rw-rw----", "077, 0666, rw-rw-rw-"})
  void unixSocketHasItsModeWhateverTheUmask(String umask, String mode, String permissions)
      throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path socket = images.path("q.sock");
      List<String> command =
          new ArrayList<>(List.of("sh", "-c", "umask " + umask + "; exec \"$@\"", "sh"));
      command.addAll(Arrays.asList(serve("--unix", socket.toString())));
      if (!mode.isEmpty()) {
        command.addAll(List.of("--unix-mode", mode));
      }
      command.add(image.toString());
      try (Shell.Running running = Shell.start(command.toArray(String[]::new))) {
        awaitUri(running);
        assertEquals(
            PosixFilePermissions.fromString(permissions), Files.getPosixFilePermissions(socket));
        running.signal("TERM");
        running.await(PATIENCE).mustExit(0);
      }
    }
  }

  // -- socket activation

  /**
   * Does what systemd does: the Perl code {@code make} leaves a socket in $s, which becomes
   * descriptor 3.
   *
   * @param pathAndServe $p of that code, then the command
   */
  private static String[] activated(String make, String... pathAndServe) {
    String script =
        "$^F = 100; $make = shift; $p = shift; eval $make; die $@ if $@;"
            + " POSIX::dup2(fileno($s), 3) or die; $ENV{LISTEN_PID} = $$;"
            + " $ENV{LISTEN_FDS} = 1; $ENV{LISTEN_FDNAMES} = q(disk); exec @ARGV or die";
    List<String> command =
        new ArrayList<>(List.of("perl", "-MPOSIX", "-MSocket", "-e", script, make));
    command.addAll(Arrays.asList(pathAndServe));
    return command.toArray(String[]::new);
  }

  private static final String TCP =
      "socket($s, PF_INET, SOCK_STREAM, 0) or die;"
          + " bind($s, sockaddr_in(0, INADDR_LOOPBACK)) or die";
  private static final String UNIX =
      "socket($s, PF_UNIX, SOCK_STREAM, 0) or die; bind($s, sockaddr_un($p)) or die";
  private static final String LISTEN = "; listen($s, 5) or die";

  @Test
  void tcpSocketIsInherited() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      List<String> serve = new ArrayList<>(List.of("unused"));
      serve.addAll(Arrays.asList(serve(image.toString())));
      try (Shell.Running running =
          Shell.start(activated(TCP + LISTEN, serve.toArray(String[]::new)))) {
        URI uri = awaitUri(running);
        assertEquals("127.0.0.1", uri.getHost());
        // Several clients, one after another and at a time: the listener goes on accepting.
        for (int round = 0; round < 3; round++) {
          assertEquals("67108864\n", Shell.check("nbdinfo", "--size", uri.toString()));
        }
        try (NbdClient first = NbdClient.connect(uri, NbdClient.Style.GO_SIMPLE);
            NbdClient second = NbdClient.connect(uri, NbdClient.Style.GO_STRUCTURED)) {
          NbdClient.await(first.write(0, ByteBuffer.wrap(new byte[] {1}), 0));
          ByteBuffer read = ByteBuffer.allocate(1);
          NbdClient.await(second.read(0, read));
          assertEquals(1, read.get(0));
        }
        running.signal("TERM");
        running.await(PATIENCE).mustExit(0);
      }
    }
  }

  @Test
  void unixSocketIsInheritedAndItsFileStays() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      Path socket = images.path("q.sock");
      List<String> serve = new ArrayList<>(List.of(socket.toString()));
      serve.addAll(Arrays.asList(serve(image.toString())));
      try (Shell.Running running =
          Shell.start(activated(UNIX + LISTEN, serve.toArray(String[]::new)))) {
        URI uri = awaitUri(running);
        assertEquals("nbd+unix:///?socket=" + socket, uri.toString());
        assertEquals("67108864\n", Shell.check("nbdinfo", "--size", uri.toString()));
        running.signal("TERM");
        running.await(PATIENCE).mustExit(0);
      }
      assertTrue(Files.exists(socket, LinkOption.NOFOLLOW_LINKS));
    }
  }

  @Test
  void socketsThatCannotBeServedAreRefused() throws IOException {
    try (Images images = Images.inTempDir()) {
      String image = images.qcow2("disk.qcow2", "64M").toString();
      refused("socket($s, PF_INET, SOCK_DGRAM, 0) or die", 1, "neither a tcp nor a unix", image);
      refused(TCP, 1, "(disk) does not listen", image);
      refused("open($s, q(<), q(/dev/null)) or die", 1, "descriptor 3 is no socket", image);
      refused(TCP + LISTEN, USAGE, "socket activation", "--listen", "127.0.0.1:0", image);
      refused(TCP + LISTEN, USAGE, "socket activation", "--run", "true", image);
    }
  }

  private static void refused(String make, int exit, String words, String... arguments) {
    List<String> serve = new ArrayList<>(List.of("unused"));
    serve.addAll(Arrays.asList(serve(arguments)));
    BadInputIT.assertRefused(
        Shell.run(PATIENCE, activated(make, serve.toArray(String[]::new))), exit, words);
  }

  @Test
  void socketsForAnotherProcessAreIgnored() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M");
      List<String> command = new ArrayList<>(List.of("env", "LISTEN_PID=1", "LISTEN_FDS=1"));
      command.addAll(Arrays.asList(serve("--listen", "127.0.0.1:0", image.toString())));
      try (Shell.Running running = Shell.start(command.toArray(String[]::new))) {
        assertEquals("67108864\n", Shell.check("nbdinfo", "--size", awaitUri(running).toString()));
        running.signal("TERM");
        running.await(PATIENCE).mustExit(0);
      }
    }
  }
}
