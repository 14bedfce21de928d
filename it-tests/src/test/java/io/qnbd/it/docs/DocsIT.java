package io.qnbd.it.docs;

import static java.util.Objects.requireNonNull;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.QnbdProcess;
import io.qnbd.it.Repository;
import io.qnbd.it.Shell;
import java.io.IOException;
import java.io.StringReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.xml.sax.InputSource;

/**
 * What the README and the manual tell a reader to run works as it stands there: in a fresh
 * container that has the archive and no Java, or with the host's engine what calls that.
 */
final class DocsIT {
  private static final List<String> PAGES =
      List.of(
          "README.md",
          "docs/attach.md",
          "docs/backup.md",
          "docs/containers.md",
          "docs/control.md",
          "docs/encryption.md",
          "docs/running.md",
          "docs/tls.md",
          "docs/tuning.md",
          "docs/virtual-machines.md");

  /** Whoever adds to them says on the page why, and here that it was meant. */
  private static final int NOT_RUN_COUNT = 12;

  private static final Pattern LINK = Pattern.compile("\\]\\(([^)#:]+)[^):]*\\)");
  private static final Pattern XML = Pattern.compile("(?s)```xml\\n(.*?)```");
  private static final Pattern LONG_OPTION = Pattern.compile("--[a-z][a-z-]+");

  /** Each has a container of its own, so that both processors have something to do. */
  private static final int READERS = 2;

  private static final BlockingQueue<Reader> FREE = new LinkedBlockingQueue<>();
  private static final Map<String, Future<Shell.Result>> RESULTS = new HashMap<>();
  private static ExecutorService reading;

  @BeforeAll
  static void beginToRead() throws IOException {
    reading = Executors.newFixedThreadPool(READERS);
    for (int count = 0; count < READERS; count++) {
      FREE.add(Reader.inFreshContainer());
    }
    for (Page.Command command : commands().filter(each -> !isForTheEngine(each)).toList()) {
      RESULTS.put(command.text(), reading.submit(() -> read(r -> r.run(command.text()))));
    }
  }

  @AfterAll
  static void end() throws InterruptedException {
    reading.shutdownNow();
    assertTrue(reading.awaitTermination(1, TimeUnit.MINUTES), "a command does not end");
    FREE.forEach(Reader::close);
  }

  private static Shell.Result read(Function<Reader, Shell.Result> command)
      throws InterruptedException {
    Reader reader = FREE.take();
    try {
      return command.apply(reader);
    } finally {
      FREE.add(reader);
    }
  }

  private static boolean isForTheEngine(Page.Command command) {
    return command.text().startsWith("docker");
  }

  private static List<Page.Command> all() throws IOException {
    List<Page.Command> all = new ArrayList<>();
    for (String page : PAGES) {
      all.addAll(Page.read(page).commands());
    }
    return all;
  }

  /** Each once, where it stands first. */
  private static Stream<Page.Command> commands() throws IOException {
    Set<String> seen = new HashSet<>();
    return all().stream().filter(command -> !command.marked() && seen.add(command.text()));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("commands")
  void runsAsItStandsThere(Page.Command command) throws Exception {
    if (isForTheEngine(command)) {
      Engine.mustRun(command.text());
    } else {
      requireNonNull(RESULTS.get(command.text())).get().mustExit(0);
    }
  }

  @Test
  void fewCommandsAreMarkedAsNotRun() throws IOException {
    List<Page.Command> marked = all().stream().filter(Page.Command::marked).toList();
    assertEquals(NOT_RUN_COUNT, marked.size(), () -> "marked: " + marked);
    assertTrue(commands().count() > 5 * NOT_RUN_COUNT, "hardly a command was found");
  }

  @Test
  void theReadyLineIsAsTheReadmeHasIt() throws Exception {
    Page readme = Page.read("README.md");
    String ready = readme.from("qnbd: serving ");
    assertFalse(ready.isEmpty());
    String first = readme.commands().getFirst().text();
    assertEquals(ready, requireNonNull(RESULTS.get(first)).get().mustExit(0).out());
  }

  @Test
  void errorsReadAsTheTroubleshootingPageSays() throws Exception {
    List<List<String>> rows = Page.read("docs/troubleshooting.md").table("It says");
    assertFalse(rows.isEmpty());
    for (List<String> row : rows) {
      String message = Page.spans(row.get(0)).getFirst();
      Shell.Result failed = read(r -> r.runBesideOther(Page.spans(row.get(1)).getFirst()));
      assertTrue(failed.exit() == 1 || failed.exit() == 64, failed::toString);
      assertTrue(failed.err().contains(message), () -> message + "\n" + failed);
    }
  }

  @Test
  void theTableForQemuNbdKnowsAllItsOptionsAndNoneThatQnbdHasNot() throws IOException {
    Page page = Page.read("docs/qemu-nbd.md");
    StringBuilder theirs = new StringBuilder();
    String help = QnbdProcess.run("serve", "--help").mustExit(0).out();
    for (List<String> row : page.table("qemu-nbd")) {
      theirs.append(row.get(0)).append(' ');
      LONG_OPTION
          .matcher(row.get(1))
          .results()
          .map(found -> found.group())
          .filter(option -> !List.of("--help", "--version").contains(option))
          .forEach(option ->
              assertTrue(help.matches("(?s).*" + option + "[= ,\n].*"), () -> option + row));
    }
    LONG_OPTION
        .matcher(Shell.check("qemu-nbd", "--help"))
        .results()
        .map(found -> found.group())
        .forEach(option -> assertTrue(theirs.toString().contains(option), option));
  }

  @Test
  void linksLeadToFilesAndXmlIsWellFormed() throws Exception {
    try (Stream<Path> docs = Files.list(Repository.root().resolve("docs"))) {
      List<Path> pages = new ArrayList<>(docs.filter(p -> p.toString().endsWith(".md")).toList());
      pages.add(Repository.root().resolve("README.md"));
      pages.add(Repository.root().resolve("docker/README.md"));
      for (Path page : pages) {
        String text = Files.readString(page);
        for (var link : LINK.matcher(text).results().toList()) {
          Path target = page.resolveSibling(link.group(1));
          assertTrue(Files.exists(target), () -> page + " links to " + target);
        }
        for (var xml : XML.matcher(text).results().toList()) {
          DocumentBuilderFactory.newInstance()
              .newDocumentBuilder()
              .parse(new InputSource(new StringReader(xml.group(1))));
        }
      }
    }
  }
}
