package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import io.qnbd.it.client.NbdException;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Whom an export lets in, and how fast. */
@Timeout(300)
final class LimitsIT {
  private static final Duration PATIENCE = Duration.ofSeconds(60);
  private static final int BLOCK_BYTES = 64 << 10;

  // Answers to GO, section "Option reply types" of the protocol.
  private static final int REP_ERR_POLICY = 0x80000002;
  private static final int REP_ERR_TLS_REQD = 0x80000005;

  private static NbdClient connect(URI uri) throws IOException {
    return NbdClient.connect(uri, NbdClient.Style.GO_STRUCTURED);
  }

  private static NbdException refused(URI uri) {
    return assertThrows(NbdException.class, () -> connect(uri).close());
  }

  private static void refusedAsFull(URI uri, String sentence) {
    NbdException refusal = refused(uri);
    assertEquals(REP_ERR_POLICY, refusal.error());
    assertTrue(String.valueOf(refusal.getMessage()).endsWith(sentence), refusal::toString);
  }

  /** Connects as soon as the place is free that a client has just left. */
  private static NbdClient connectSoon(URI uri) throws IOException {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (true) {
      try {
        return connect(uri);
      } catch (NbdException e) {
        if (e.error() != REP_ERR_POLICY || System.nanoTime() > deadline) {
          throw e;
        }
      }
      Shell.pause(Duration.ofMillis(5));
    }
  }

  private static String ctl(Path control, String... arguments) {
    List<String> command = new ArrayList<>(List.of("ctl", control.toString()));
    command.addAll(List.of(arguments));
    return QnbdProcess.run(command.toArray(String[]::new)).mustExit(0).out();
  }

  private static void assertContains(String part, String whole) {
    assertTrue(whole.contains(part), () -> part + " is missing in\n" + whole);
  }

  @Test
  void whoFindsAnExportFullGetsInWhenSomebodyLeaves() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", "16M");
      Path control = images.path("control");
      Path socket = images.path("nbd");
      try (QnbdProcess qnbd =
          QnbdProcess.serve(
              "--max-clients=3",
              "--max-clients-per-address=2",
              "--listen",
              "127.0.0.1:0",
              "--unix",
              socket.toString(),
              "--control",
              control.toString(),
              image.toString())) {
        URI tcp = qnbd.uri("disk.qcow2");
        URI unix = URI.create("nbd+unix:///disk.qcow2?socket=" + socket);
        NbdClient first = connect(tcp);
        NbdClient second = connect(tcp);
        refusedAsFull(tcp, "this client has 2 connections to the export, which is its limit");

        NbdClient another = connect(unix);
        refusedAsFull(unix, "the export has 3 connections, which is its limit");
        String exports = ctl(control, "exports", "--json");
        assertContains("\"connections\":3", exports);
        assertContains("\"max-connections\":3", exports);
        assertContains("\"max-connections-per-client\":2", exports);
        Shell.run("nbdinfo", tcp.toString()).mustExit(1);

        // One says goodbye, and one crashes.
        first.close();
        NbdClient fourth = connectSoon(unix);
        refusedAsFull(tcp, "the export has 3 connections, which is its limit");
        another.abort();
        NbdClient fifth = connectSoon(tcp);
        for (NbdClient inside : List.of(second, fourth, fifth)) {
          NbdClient.await(inside.flush());
          inside.close();
        }
        qnbd.stop();
      }
    }
  }

  private static byte[] block(int seed) {
    byte[] block = new byte[BLOCK_BYTES];
    Arrays.fill(block, (byte) (1 + seed));
    return block;
  }

  private static void mustHold(NbdClient client, int index) throws IOException {
    ByteBuffer read = ByteBuffer.allocate(BLOCK_BYTES);
    NbdClient.await(client.read((long) index * BLOCK_BYTES, read));
    assertArrayEquals(block(index), read.array());
  }

  private static CompletableFuture<Void> write(NbdClient client, int index) {
    return client.write((long) index * BLOCK_BYTES, ByteBuffer.wrap(block(index)), 0);
  }

  private static long answered(List<CompletableFuture<Void>> requests) {
    return requests.stream().filter(CompletableFuture::isDone).count();
  }

  /**
   * A block at a byte in a second is paid for after most of a day, so however slow the machine is,
   * what waits for it goes on waiting until the limit is lifted.
   */
  @Test
  void aLimitedExportWaitsAndHoldsNoOtherUp() throws IOException {
    try (Images images = Images.inMemory()) {
      images.qcow2("slow.qcow2", "16M");
      images.qcow2("free.qcow2", "16M");
      Path control = images.path("control");
      String slow = "control = 'control'\n[export.slow]\npath = 'slow.qcow2'\n";
      String free = "[export.free]\npath = 'free.qcow2'\n";
      Path file = Files.writeString(images.path("q.toml"), slow + "bytes-per-second = 1\n" + free);
      try (QnbdProcess qnbd = QnbdProcess.serve("--config", file.toString());
          NbdClient limited = connect(qnbd.uri("slow"));
          NbdClient sharing = connect(qnbd.uri("slow"));
          NbdClient unlimited = connect(qnbd.uri("free"))) {
        List<CompletableFuture<Void>> requests = new ArrayList<>();
        for (int index = 0; index < 8; index++) {
          requests.add(write(limited, index));
        }
        NbdClient.await(requests.getFirst());
        requests.add(write(sharing, 8));
        requests.add(sharing.flush());
        for (int round = 0; round < 150; round++) {
          NbdClient.await(write(unlimited, round));
          mustHold(unlimited, round);
        }
        assertEquals(1, answered(requests));
        assertEquals(1, counter(control, "slow", "writes"));
        assertEquals(0, counter(control, "slow", "flushes"));
        assertEquals(150, counter(control, "free", "writes"));
        assertEquals(150, counter(control, "free", "reads"));

        Files.writeString(file, slow + free);
        ctl(control, "reload");
        for (CompletableFuture<Void> request : requests) {
          NbdClient.await(request);
        }
        for (int index = 0; index <= 8; index++) {
          mustHold(index % 2 == 0 ? sharing : limited, index);
        }
        assertEquals(9, counter(control, "slow", "writes"));
        qnbd.stop();
      }
    }
  }

  private static long counter(Path control, String export, String name) {
    String stats = ctl(control, "stats", export, "--json");
    Matcher counter = Pattern.compile("\"" + name + "\":(\\d+)").matcher(stats);
    assertTrue(counter.find(), stats);
    return Long.parseLong(counter.group(1));
  }

  @Test
  void everyRequestUnderARateIsAnsweredInTheEnd() throws IOException {
    try (Images images = Images.inMemory()) {
      Path image = images.qcow2("disk.qcow2", "16M");
      Path control = images.path("control");
      try (QnbdProcess qnbd =
              QnbdProcess.serve(
                  "--rate-bytes=1M",
                  "--rate-requests=20",
                  "--control",
                  control.toString(),
                  image.toString());
          NbdClient writer = connect(qnbd.uri());
          NbdClient reader = connect(qnbd.uri())) {
        String exports = ctl(control, "exports", "--json");
        assertContains("\"bytes-per-second\":1048576", exports);
        assertContains("\"requests-per-second\":20", exports);
        List<CompletableFuture<Void>> requests = new ArrayList<>();
        for (int index = 0; index < 16; index++) {
          requests.add(write(writer, index));
        }
        for (CompletableFuture<Void> request : requests) {
          NbdClient.await(request);
        }
        List<ByteBuffer> blocks = new ArrayList<>();
        requests.clear();
        for (int index = 0; index < 16; index++) {
          ByteBuffer block = ByteBuffer.allocate(BLOCK_BYTES);
          blocks.add(block);
          NbdClient client = index % 2 == 0 ? reader : writer;
          requests.add(client.read((long) index * BLOCK_BYTES, block));
        }
        for (int index = 0; index < 16; index++) {
          NbdClient.await(requests.get(index));
          assertArrayEquals(block(index), blocks.get(index).array());
        }
        qnbd.stop();
      }
    }
  }

  /** Four requests of 32 MiB at a time are within the budget of the smallest server. */
  @Test
  void aSmallHeapServesTheLargestRequests() throws IOException {
    try (Images images = Images.inTempDir()) {
      String load =
          "QNBD_JAVA_OPTS= %s bench --write --buffer-size 32M --depth 4 --count 24 \"$uri\""
              .formatted(QnbdProcess.launcher());
      Shell.check(
          "env",
          "QNBD_JAVA_OPTS=-Xmx40m",
          QnbdProcess.launcher(),
          "serve",
          "--run",
          load,
          images.qcow2("disk.qcow2", "256M").toString());
    }
  }

  /** What a libnbd client sees: the names of the exports, in any order. */
  private static Set<String> listed(String uri) {
    String list = Shell.check("nbdinfo", "--list", "--json", uri);
    return Pattern.compile("\"export-name\": \"([^\"]*)\"")
        .matcher(list)
        .results()
        .map(name -> name.group(1))
        .collect(Collectors.toSet());
  }

  /** A server with TLS; {@code allowedByHers} is who may use the export {@code hers}. */
  private static String guarded(String allowedByHers) {
    return """
    control = 'control'
    [tls]
    mode = 'optional'
    certificates = 'tls'
    [export.open]
    path = 'open.qcow2'
    [export.secret]
    path = 'secret.qcow2'
    tls-required = true
    [export.his]
    path = 'his.qcow2'
    allowed-subjects = ['CN=alice,O=lab', 'CN=qnbd client']
    [export.hers]
    path = 'hers.qcow2'
    allowed-subjects = ['%s']
    """
        .formatted(allowedByHers);
  }

  @Test
  void exportsShowThemselvesToThoseTheyAreFor() throws IOException {
    try (Images images = Images.inTempDir()) {
      for (String name : List.of("open", "secret", "his", "hers")) {
        images.qcow2(name + ".qcow2", "4M");
      }
      Path tls = images.path("tls");
      QnbdProcess.run("serve", "--tls-generate", tls.toString()).mustExit(0);
      Path nobody = Files.createDirectory(images.path("nobody"));
      Files.copy(tls.resolve("ca-cert.pem"), nobody.resolve("ca-cert.pem"));
      Path file = Files.writeString(images.path("q.toml"), guarded("CN=alice,O=lab"));
      try (QnbdProcess qnbd = QnbdProcess.serve("--config", file.toString())) {
        String base = "nbds://localhost:%d/%%s?tls-certificates=%%s".formatted(qnbd.port());

        assertEquals(Set.of("open"), listed(qnbd.uri("").toString()));
        for (String hidden : List.of("secret", "his", "hers")) {
          NbdException refusal = refused(qnbd.uri(hidden));
          assertEquals(REP_ERR_TLS_REQD, refusal.error());
          assertContains("is served over TLS only", String.valueOf(refusal.getMessage()));
          Shell.run("nbdinfo", qnbd.uri(hidden).toString()).mustExit(1);
        }

        assertEquals(Set.of("open", "secret"), listed(base.formatted("", nobody)));
        Shell.check("nbdinfo", base.formatted("secret", nobody));
        Shell.run("nbdinfo", base.formatted("his", nobody)).mustExit(1);

        assertEquals(Set.of("open", "secret", "his"), listed(base.formatted("", tls)));
        Shell.run("nbdinfo", base.formatted("hers", tls)).mustExit(1);
        Path raw = images.rawOfNoise("noise.raw", 4 << 20, 1);
        Shell.check("nbdcopy", "--flush", raw.toString(), base.formatted("his", tls));

        Files.writeString(file, guarded("cn=QNBD client"));
        ctl(images.path("control"), "reload");
        Shell.check("nbdinfo", base.formatted("hers", tls));
        Shell.run("nbdinfo", base.formatted("hers", nobody)).mustExit(1);
        qnbd.stop();
        assertArrayEquals(Files.readAllBytes(raw), images.contents(images.path("his.qcow2")));
      }
    }
  }
}
