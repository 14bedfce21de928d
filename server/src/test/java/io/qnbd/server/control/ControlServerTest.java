package io.qnbd.server.control;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.server.export.Export;
import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The protocol over a real socket, with a server and two exports in this process. */
@Timeout(60)
final class ControlServerTest {
  @TempDir private Path directory = Path.of("");

  private final SnapshotsInMemory disk = new SnapshotsInMemory();
  private final FixedServer controlled =
      new FixedServer(List.of(export("a", disk), export("b", new SnapshotsInMemory())));
  private Path socket = Path.of("");
  private List<ControlServer> servers = new ArrayList<>();

  @BeforeEach
  void start() throws IOException {
    socket = directory.resolve("ctl");
    servers.add(
        ControlServer.start(socket, controlled, failure -> String.valueOf(failure.getMessage())));
  }

  @AfterEach
  void stop() throws InterruptedException {
    disk.release();
    ControlServer server = servers.getFirst();
    server.stop();
    assertTrue(server.awaitQuiet(Duration.ofSeconds(10)));
    assertFalse(Files.exists(socket));
  }

  private static ControlledExport export(String name, SnapshotsInMemory image) {
    return new ControlledExport(
        new Export(name, "a disk", image, CacheMode.WRITEBACK),
        "qcow2",
        Path.of(name + ".qcow2"),
        false,
        name.equals("a"),
        ControlledExport.Origin.FILE);
  }

  private Map<String, Object> ask(ControlRequest request) throws IOException {
    return ControlClient.ask(socket, request).members();
  }

  private static String failureOf(Map<String, Object> reply) {
    assertEquals(1, reply.size(), reply.toString());
    return String.valueOf(reply.get("error"));
  }

  /** A client that says what it likes. */
  private static final class Talk implements AutoCloseable {
    private final SocketChannel channel;
    private final LineReader lines;

    Talk(Path socket) throws IOException {
      channel = SocketChannel.open(UnixDomainSocketAddress.of(socket));
      lines = new LineReader(Channels.newInputStream(channel), 1 << 20);
    }

    void say(String text) throws IOException {
      Channels.newOutputStream(channel).write(text.getBytes(StandardCharsets.UTF_8));
    }

    Map<String, Object> reply() throws IOException {
      return switch (lines.next()) {
        case LineReader.Next.Line line -> JsonLine.parse(line.bytes);
        case LineReader.Next.TooLong(), LineReader.Next.End() ->
            throw new AssertionError("no reply came");
      };
    }

    boolean atEnd() throws IOException {
      return lines.next() instanceof LineReader.Next.End;
    }

    @Override
    public void close() throws IOException {
      channel.close();
    }
  }

  @Test
  void onlyTheOwnerMayConnect() throws IOException {
    assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(socket)));
  }

  @Test
  void exportsSayWhatTheyAre() throws IOException {
    assertEquals(
        "{\"exports\":[{\"name\":\"a\",\"description\":\"a disk\",\"file\":\"a.qcow2\","
            + "\"format\":\"qcow2\",\"size\":1048576,\"read-only\":false,\"temporary\":false,"
            + "\"default\":true,\"tls-required\":false,\"connections\":0,\"max-connections\":0,"
            + "\"max-connections-per-client\":0,\"bytes-per-second\":0,"
            + "\"requests-per-second\":0,\"from\":\"file\"},"
            + "{\"name\":\"b\",\"description\":\"a disk\",\"file\":\"b.qcow2\","
            + "\"format\":\"qcow2\",\"size\":1048576,\"read-only\":false,\"temporary\":false,"
            + "\"default\":false,\"tls-required\":false,\"connections\":0,"
            + "\"max-connections\":0,\"max-connections-per-client\":0,\"bytes-per-second\":0,"
            + "\"requests-per-second\":0,\"from\":\"file\"}]}",
        ControlClient.ask(socket, new ControlRequest.Exports()).line());
  }

  @Test
  void clientsAreListedAndSentAway() throws IOException {
    assertEquals(
        "{\"clients\":[{\"id\":3,\"peer\":\"/127.0.0.1:7\",\"export\":\"a\",\"tls\":true,"
            + "\"identity\":\"CN=me\",\"since\":\"2026-11-24T01:02:03Z\"},"
            + "{\"id\":4,\"peer\":\"x\",\"tls\":false,\"since\":\"1970-01-01T00:00:00Z\"}]}",
        ControlClient.ask(socket, new ControlRequest.Clients()).line());
    assertEquals(Map.of("done", true), ask(new ControlRequest.Disconnect(3)));
    assertEquals(
        "there is no client 5",
        assertThrows(IOException.class, () -> ask(new ControlRequest.Disconnect(5))).getMessage());
  }

  @Test
  void exportsAreAddedWithTheirKeysAndRemoved() throws IOException {
    Map<String, Object> keys =
        Map.of(
            "path", "/x y", "read-only", true, "ref-batch", 7L, "allowed-subjects", List.of("ä"));
    Map<String, Object> reply = ask(new ControlRequest.AddExport(keys));
    assertEquals(keys, controlled.added);
    assertTrue(reply.get("added") instanceof Map<?, ?> added && "a".equals(added.get("name")));
    assertEquals(Map.of("done", true), ask(new ControlRequest.RemoveExport("b")));
    assertEquals("b", controlled.removed);
  }

  @Test
  void aDiskInUseGrowsAndDoesNotShrink() throws IOException {
    assertEquals(Map.of("size", 2097152L), ask(new ControlRequest.Resize("a", 2 << 20)));
    assertEquals(
        "export 'a' has 2097152 bytes, and a disk in use cannot shrink to 512",
        assertThrows(IOException.class, () -> ask(new ControlRequest.Resize("a", 512)))
            .getMessage());
  }

  @Test
  void aReportOfAReloadCrossesTheSocket() throws IOException {
    ReloadReport report = ReloadReport.read(ask(new ControlRequest.Reload()));
    assertEquals(controlled.reload(), report);
    assertEquals(
        List.of(
            "reloaded q.toml: added 'n'; reopened 'o', 'p'; 4 unchanged",
            "export 'bad': no",
            "changed, but in effect only after the next start: listen"),
        report.lines());
  }

  @Test
  void statsNameEveryCounterOfOneExportOrOfAll() throws IOException {
    List<?> all = (List<?>) ask(new ControlRequest.Stats(null)).get("stats");
    assertEquals(2, all == null ? 0 : all.size());
    String line = ControlClient.ask(socket, new ControlRequest.Stats("b")).line();
    assertEquals(
        "{\"stats\":[{\"export\":\"b\",\"reads\":0,\"read-bytes\":0,\"writes\":0,"
            + "\"write-bytes\":0,\"zeroes\":0,\"trims\":0,\"flushes\":0,"
            + "\"batched\":1,\"coalesced\":2,\"cancelled\":3,\"applied\":4,\"reserved\":5,"
            + "\"returned\":6,\"reused\":7,\"refcount-writes\":8,\"table-writes\":9,"
            + "\"syncs\":10,\"commits\":2,\"commit-requests\":3,\"writers-per-commit\":1.5}]}",
        line);
  }

  @Test
  void snapshotsAreTakenListedRenamedAndDeleted() throws IOException {
    String name = "with \"quotes\", \n and ä";
    assertEquals(Map.of("done", true), ask(new ControlRequest.CreateSnapshot("a", name)));
    assertEquals(Map.of("done", true), ask(new ControlRequest.CreateSnapshot("a", "second")));
    assertEquals(Map.of("done", true), ask(new ControlRequest.RenameSnapshot("a", name, "new")));
    List<Snapshot> listed = new ArrayList<>();
    if (ask(new ControlRequest.ListSnapshots("a")).get("snapshots") instanceof List<?> objects) {
      for (Object object : objects) {
        listed.add(SnapshotFields.read((Map<?, ?>) object));
      }
    }
    assertEquals(disk.list(), listed);
    assertEquals(List.of("new", "second"), listed.stream().map(Snapshot::name).toList());
    assertEquals(Map.of("done", true), ask(new ControlRequest.DeleteSnapshot("a", "new")));
    assertEquals(1, disk.list().size());
    assertEquals(Map.of("snapshots", List.of()), ask(new ControlRequest.ListSnapshots("b")));
  }

  @Test
  void aFailureIsTheServersSentence() throws IOException {
    assertEquals(
        "no export is named ''",
        assertThrows(IOException.class, () -> ask(new ControlRequest.CreateSnapshot("", "name")))
            .getMessage());
    assertEquals(
        "has no snapshot named gone",
        assertThrows(IOException.class, () -> ask(new ControlRequest.DeleteSnapshot("a", "gone")))
            .getMessage());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "exports",
        "[]",
        "{",
        "{}",
        "{} {}",
        "{\"command\": 7}",
        "{\"command\": null}",
        "{\"command\": \"nonsense\"}",
        "{\"command\": \"exports\", \"command\": \"exports\"}",
        "{\"command\": \"exports\", \"export\": \"a\"}",
        "{\"command\": \"stats\", \"export\": [\"a\"]}",
        "{\"command\": \"snapshot-create\", \"export\": \"a\"}",
        "{\"command\": \"resize\", \"export\": \"a\", \"size\": \"1G\"}",
        "{\"command\": \"resize\", \"export\": \"a\"}",
        "{\"command\": \"compact\"}",
        "{\"command\": \"client-disconnect\", \"id\": \"1\"}",
        "{\"command\": \"export-remove\"}",
        "{\"command\": \"reload\", \"file\": \"x\"}",
        "{\"command\": \"snapshot-rename\", \"export\": \"a\", \"name\": \"b\"}",
        "{\"command\": \"exports\", \"n\": 99999999999999999999999999}"
      })
  void aMalformedLineGetsAnErrorAndTheConnectionStays(String line) throws IOException {
    try (Talk talk = new Talk(socket)) {
      talk.say(line + "\n");
      String failure = failureOf(talk.reply());
      assertFalse(failure.isBlank() || failure.contains("Exception"), failure);
      talk.say("{\"command\": \"exports\"}\n");
      assertTrue(talk.reply().containsKey("exports"));
    }
  }

  @Test
  void aLineOfTheGreatestLengthIsReadAndALongerOneDropped() throws IOException {
    String request = "{\"command\":\"exports\"}";
    String longest = request + " ".repeat(ControlServer.LINE_BYTES_MAX - request.length());
    try (Talk talk = new Talk(socket)) {
      talk.say(longest + "\n");
      assertTrue(talk.reply().containsKey("exports"));
      talk.say(longest + " \n");
      assertEquals("a request has at most 65536 bytes", failureOf(talk.reply()));
      talk.say(request + "\n");
      assertTrue(talk.reply().containsKey("exports"));
    }
  }

  @Test
  void requestsThatComeTogetherOrInPiecesAreAnsweredInOrder() throws IOException {
    try (Talk talk = new Talk(socket)) {
      talk.say("{\"command\":\"exports\"}\n{\"command\":\"stats\"}\n{\"comm");
      assertTrue(talk.reply().containsKey("exports"));
      assertTrue(talk.reply().containsKey("stats"));
      talk.say("and\":\"snapshot-list\",\"export\":\"a\"}\n");
      assertTrue(talk.reply().containsKey("snapshots"));
    }
  }

  @Test
  void oneClientTooManyIsToldSoAndAPlaceIsFreeWhenOneLeaves() throws Exception {
    List<Talk> talks = new ArrayList<>();
    for (int i = 0; i < ControlServer.CLIENTS_MAX; i++) {
      Talk talk = new Talk(socket);
      talks.add(talk);
      talk.say("{\"command\":\"exports\"}\n");
      assertTrue(talk.reply().containsKey("exports"));
    }
    try (Talk tooMany = new Talk(socket)) {
      assertEquals("too many control connections, at most 8", failureOf(tooMany.reply()));
      assertTrue(tooMany.atEnd());
    }
    talks.removeFirst().close();
    long deadline = System.nanoTime() + Duration.ofSeconds(10).toNanos();
    boolean admitted = false;
    while (!admitted && System.nanoTime() < deadline) {
      try {
        admitted = ask(new ControlRequest.Exports()).containsKey("exports");
      } catch (IOException _) {
        Thread.sleep(2); // the server has not noticed yet that one left
      }
    }
    assertTrue(admitted);
    for (Talk talk : talks) {
      talk.close();
    }
  }

  @Test
  void aStopFinishesAndAnswersWhatHasBegunAndDisconnectsTheOthers() throws Exception {
    disk.hold();
    try (Talk idle = new Talk(socket)) {
      idle.say("{\"command\":\"exports\"}\n");
      assertTrue(idle.reply().containsKey("exports"));
      CompletableFuture<Map<String, Object>> reply =
          CompletableFuture.supplyAsync(() -> {
            try {
              return ask(new ControlRequest.CreateSnapshot("a", "late"));
            } catch (IOException e) {
              throw new AssertionError(e);
            }
          });
      disk.awaitHeld();
      ControlServer server = servers.getFirst();
      server.stop();
      assertFalse(server.awaitQuiet(Duration.ofMillis(20)));
      disk.release();
      // The bound cut the connections; what had begun in the image was not disturbed.
      assertTrue(server.awaitQuiet(Duration.ofSeconds(10)));
      assertTrue(idle.atEnd());
      assertThrows(Exception.class, reply::get);
      assertEquals(1, disk.list().size());
    }
  }

  @Test
  void whatEndsWithinTheBoundIsAnswered() throws Exception {
    disk.hold();
    try (Talk talk = new Talk(socket)) {
      talk.say("{\"command\":\"snapshot-create\",\"export\":\"a\",\"name\":\"last\"}\n");
      disk.awaitHeld();
      ControlServer server = servers.getFirst();
      server.stop();
      disk.release();
      assertTrue(server.awaitQuiet(Duration.ofSeconds(10)));
      assertEquals(Map.of("done", true), talk.reply());
      assertTrue(talk.atEnd());
    }
  }

  @Test
  void aPathThatIsTakenIsNotReplaced() throws IOException {
    Path file = Files.writeString(directory.resolve("file"), "precious");
    IOException failure =
        assertThrows(
            IOException.class, () -> ControlServer.start(file, controlled, _ -> "").stop());
    assertTrue(String.valueOf(failure.getMessage()).contains(file.toString()));
    assertEquals("precious", Files.readString(file));
  }
}
