package io.qnbd.server;

import static java.util.Objects.requireNonNull;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;

/** Whole command lines, run in this process. */
final class CommandLineTest {
  private static final List<String> COMMANDS =
      List.of(
          "serve",
          "create",
          "info",
          "check",
          "map",
          "resize",
          "rebase",
          "amend",
          "commit",
          "compact",
          "convert",
          "compare",
          "measure",
          "bench",
          "snapshot",
          "snapshot list",
          "snapshot create",
          "snapshot apply",
          "snapshot delete",
          "snapshot rename",
          "bitmap",
          "bitmap list",
          "bitmap add",
          "bitmap remove",
          "bitmap enable",
          "bitmap disable",
          "bitmap clear",
          "bitmap merge",
          "ctl",
          "ctl exports",
          "ctl stats",
          "ctl clients",
          "ctl client",
          "ctl client disconnect",
          "ctl bitmap",
          "ctl bitmap list",
          "ctl bitmap add",
          "ctl bitmap remove",
          "ctl bitmap enable",
          "ctl bitmap disable",
          "ctl bitmap clear",
          "ctl bitmap merge",
          "ctl export",
          "ctl export add",
          "ctl export remove",
          "ctl reload",
          "ctl resize",
          "ctl compact",
          "ctl snapshot",
          "ctl snapshot list",
          "ctl snapshot create",
          "ctl snapshot delete",
          "ctl snapshot rename",
          "completion",
          "man");

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();
  private final Qnbd qnbd = new Qnbd(new Terminal(new PrintWriter(out), new PrintWriter(err)));

  @TempDir private Path directory = Path.of("");

  private int run(String... args) {
    return qnbd.run(args);
  }

  private CommandLine command(String name) {
    CommandLine command = qnbd.commandLine();
    for (String word : name.split(" ", -1)) {
      command = requireNonNull(command.getSubcommands().get(word), name);
    }
    return command;
  }

  /** {@code ctl snapshot list --help}, with the socket that stands before the second word. */
  private static String[] helpOf(String name) {
    String words = name.startsWith("ctl ") ? name.replaceFirst(" ", " socket ") : name;
    return (words + " --help").split(" ", -1);
  }

  private void assertOneSentence() {
    assertEquals("", out.toString());
    assertTrue(err.toString().startsWith("qnbd: "), err.toString());
    assertEquals(1, err.toString().lines().count(), err.toString());
    assertFalse(err.toString().contains("Exception"), err.toString());
  }

  @Test
  void helpNamesEveryOptionWithItsDescriptionAndTheExitCodes() {
    for (String name : COMMANDS) {
      CommandLine command = command(name);
      String help = command.getUsageMessage();
      for (OptionSpec option : command.getCommandSpec().options()) {
        assertTrue(help.contains(option.longestName()), name + " " + option.longestName());
        assertFalse(String.join("", option.description()).isBlank(), option.longestName());
      }
      String start = name.split(" ", -1)[0];
      assertTrue(help.contains("Usage: qnbd " + start), help);
      assertTrue(help.contains("Exit codes"), help);
      assertTrue(help.contains("Examples:"), help);
      assertEquals(ExitCode.OK, run(helpOf(name)));
    }
    assertEquals("", err.toString());
  }

  @Test
  void aManualPageSaysWhatTheHelpSays() {
    for (String name : COMMANDS) {
      out.getBuffer().setLength(0);
      assertEquals(ExitCode.OK, run(("man " + name).split(" ", -1)));
      String page = out.toString().replace("\\-", "-");
      assertTrue(page.startsWith(".TH QNBD-" + name.replace(' ', '-').toUpperCase(Locale.ROOT)));
      for (OptionSpec option : command(name).getCommandSpec().options()) {
        assertTrue(page.contains(option.longestName()), name + " " + option.longestName());
      }
      assertFalse(page.contains("${"), page);
      assertFalse(page.contains("%n"), page);
      page.lines()
          .filter(line -> line.startsWith("."))
          .forEach(
              line -> assertTrue(line.matches("\\.(TH|SH|PP|TP|BR?|nf|fi|nh|ad)( .*)?"), line));
    }
    assertEquals("", err.toString());
  }

  @Test
  void manWritesAllPagesIntoADirectoryAndKnowsNoOthers() throws IOException {
    assertEquals(ExitCode.OK, run("man", "--directory", directory.toString()));
    assertTrue(Files.exists(directory.resolve("qnbd.1")));
    for (String name : COMMANDS) {
      assertTrue(Files.exists(directory.resolve("qnbd-" + name.replace(' ', '-') + ".1")), name);
    }
    assertMisuse("man nothing");
  }

  @Test
  void completionIsThereForThreeShellsAndKnowsEveryCommand() {
    for (String shell : List.of("bash", "zsh", "fish")) {
      out.getBuffer().setLength(0);
      assertEquals(ExitCode.OK, run("completion", shell));
      for (String name : COMMANDS) {
        String last = name.substring(name.lastIndexOf(' ') + 1);
        assertTrue(out.toString().contains(last), shell + ": " + name);
      }
    }
    out.getBuffer().setLength(0);
    assertMisuse("completion csh");
  }

  @Test
  void helpFitsATerminal() {
    for (String name : COMMANDS) {
      command(name)
          .getUsageMessage()
          .lines()
          .forEach(line -> assertTrue(line.length() <= 80, line));
    }
  }

  @Test
  void versionIsOneLine() {
    assertEquals(ExitCode.OK, run("--version"));
    assertTrue(
        out.toString().matches("qnbd [0-9]+\\.[0-9]+\\.[0-9]+(-SNAPSHOT)?\\R"), out.toString());
  }

  @Test
  void noCommandShowsWhichThereAre() {
    assertEquals(ExitCode.USAGE, run());
    assertEquals("", out.toString());
    COMMANDS.stream()
        .filter(command -> command.indexOf(' ') < 0)
        .forEach(command -> assertTrue(err.toString().contains(command), command));
  }

  private String answer(String... args) {
    out.getBuffer().setLength(0);
    assertEquals(ExitCode.OK, run(args), err.toString());
    return out.toString();
  }

  @Test
  void snapshotsAreTakenListedRenamedAppliedAndDeleted() {
    String image = directory.resolve("disk.qcow2").toString();
    answer("create", image, "1M");
    assertEquals("no snapshots\n", answer("snapshot", "list", image));
    assertTrue(answer("snapshot", "create", image, "one").startsWith("took snapshot one"));
    assertEquals("", answer("snapshot", "rename", "-q", image, "one", "two"));
    String list = answer("snapshot", "list", image);
    assertTrue(list.startsWith("ID ") && list.contains("two") && !list.contains("one"), list);
    assertTrue(answer("snapshot", "list", "--json", image).contains("\"name\": \"two\""));
    answer("snapshot", "apply", image, "1");
    answer("snapshot", "delete", image, "two");
    assertEquals("no snapshots\n", answer("snapshot", "list", image));
    assertEquals(ExitCode.FAILURE, run("snapshot", "delete", image, "two"));
    assertTrue(err.toString().contains("two"), err.toString());
  }

  @Test
  void bitmapsAreAddedListedChangedAndRemoved() {
    String image = directory.resolve("disk.qcow2").toString();
    answer("create", image, "1M");
    assertEquals("no bitmaps\n", answer("bitmap", "list", image));
    assertTrue(answer("bitmap", "add", image, "one").startsWith("added bitmap one"));
    assertEquals("", answer("bitmap", "add", "-q", "--replace", "one", "-g", "4K", image, "two"));
    String list = answer("bitmap", "list", image);
    assertTrue(list.matches("NAME .*\n(?s).*one +64 KiB +disabled\n.*two +4 KiB +enabled\n"), list);
    assertTrue(answer("bitmap", "list", "--json", image).contains("\"name\": \"two\""));
    answer("bitmap", "merge", image, "two", "one");
    answer("bitmap", "clear", image, "two");
    answer("bitmap", "disable", image, "two");
    answer("bitmap", "enable", image, "one");
    answer("bitmap", "remove", image, "one");
    answer("bitmap", "remove", image, "two");
    assertEquals("no bitmaps\n", answer("bitmap", "list", image));
    assertEquals(ExitCode.FAILURE, run("bitmap", "remove", image, "two"));
    assertTrue(err.toString().contains("two"), err.toString());
  }

  @Test
  void passphrasesAreForImagesThatAreEncrypted() throws IOException {
    String key = Files.writeString(directory.resolve("key"), "secret").toString();
    String secret = directory.resolve("secret.qcow2").toString();
    String plain = directory.resolve("plain.qcow2").toString();
    String drawing = directory.resolve("x.svg").toString();
    answer(
        "create",
        "--encrypt",
        "luks",
        "-o",
        "encrypt.iter-time=1",
        "--passphrase-file",
        key,
        secret,
        "1M");
    answer("create", plain, "1M");
    answer("compare", "--passphrase-file", key, "--second-passphrase-file", key, secret, secret);
    answer("compare", "--second-passphrase-file", key, plain, secret);
    answer("bench", "-c", "1", "--passphrase-file", key, secret);
    answer("map", "--passphrase-file", key, secret);
    answer("measure", "--source-passphrase-file", key, secret);
    assertEquals(2, run("compare", "--passphrase-file", key, plain, secret));
    assertEquals(2, run("compare", "--passphrase-file", key, secret, secret));
    assertEquals(ExitCode.FAILURE, run("bench", "-c", "1", secret));
    assertEquals(ExitCode.FAILURE, run("bench", "-c", "1", "--passphrase-file", key, plain));
    assertEquals(ExitCode.FAILURE, run("map", "--passphrase-file", key, plain));
    assertEquals(ExitCode.FAILURE, run("measure", secret));
    assertEquals(6, err.toString().lines().count(), err.toString());
    err.getBuffer().setLength(0);
    assertEquals(
        ExitCode.USAGE, run("map", "--svg", drawing, "--passphrase-file", key, secret), drawing);
    assertEquals(
        ExitCode.USAGE, run("measure", "--size", "1M", "--source-passphrase-file", key), "a size");
    assertEquals(2, err.toString().lines().filter(line -> line.contains("passphrase")).count());
  }

  @Test
  void aRawImageHasNoSnapshots() {
    String image = directory.resolve("disk.raw").toString();
    answer("create", "-f", "raw", image, "1M");
    assertEquals(ExitCode.FAILURE, run("snapshot", "list", image));
    assertEquals(ExitCode.FAILURE, run("serve", "--snapshot", "a", image));
    assertEquals(2, err.toString().lines().count(), err.toString());
    err.toString()
        .lines()
        .forEach(line -> assertTrue(line.contains("a raw image has no snapshots"), line));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "serv",
        "serve",
        "serve --nonsense a",
        "serve a --listen host:x",
        "serve a --cache sometimes",
        "serve a --create 100MB",
        "serve a --backing-policy maybe",
        "serve a --overlap-check maybe",
        "serve a --ref-batch -1",
        "serve a --ref-reserve 2000000",
        "serve a --l2-cache 1K",
        "serve a --workers 0",
        "serve a --max-connections 0",
        "serve a --max-clients -1",
        "serve a --rate-bytes 1Z",
        "serve a --temporary --read-only",
        "serve a dir/a",
        "serve a=",
        "serve a --format vmdk",
        "create",
        "create a",
        "create a 1G extra",
        "create a 1G -o what",
        "create a 1G -b base",
        "create a 1G --compat 7",
        "create a 1G --compat 1.1 -o compat=1.1",
        "create -f raw --cluster-size 1M a 1G",
        "info",
        "info a b",
        "check --json",
        "check -f vmdk a",
        "check -r some a",
        "check -U -r all a",
        "resize a",
        "resize a x",
        "resize a 1G 2G",
        "resize --preallocation most a 1G",
        "rebase a",
        "rebase -b base a",
        "rebase -b  -F raw a",
        "commit",
        "commit a b",
        "compact",
        "compact a b",
        "serve --snapshot s --create 1M a",
        "serve --run true --once a",
        "serve --run= a",
        "serve --unix-mode 0680 a",
        "serve --unix-mode 1777 a",
        "serve --snapshot s --format raw a",
        "snapshot",
        "snapshot take a b",
        "snapshot create a",
        "snapshot list a b",
        "snapshot apply a",
        "snapshot rename a b",
        "snapshot delete a b --backing-policy maybe"
      })
  void misuseIsOneSentenceAndNeverLooksLikeAChecksVerdict(String line) {
    assertMisuse(line);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "commit --passphrase-file a --passphrase-fd 0 a",
        "compare a",
        "compare --passphrase-file a --passphrase-fd 0 a b",
        "compare --second-passphrase-fd -1 nbd://127.0.0.1 b",
        "compare --passphrase-fd 99 --second-passphrase-fd 99 a b",
        "convert -O qcow2 --source-passphrase-fd 99 --passphrase-fd 99 a b",
        "amend --passphrase-fd 99 -o encrypt.state=active --new-passphrase-fd 99 a",
        "amend --passphrase-fd 99 -o encrypt.state=inactive --old-passphrase-fd 99 a",
        "bitmap merge -b c --source-passphrase-fd 99 --passphrase-fd 99 a week monday",
        "bench --passphrase-file a --passphrase-fd 0 a",
        "map --passphrase-fd -1 a",
        "measure --source-passphrase-fd -1 a"
      })
  void misuseOfPassphrasesIsOneSentence(String line) {
    assertMisuse(line);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "ctl",
        "ctl socket",
        "ctl socket nonsense",
        "ctl socket exports a",
        "ctl socket stats a b",
        "ctl socket client",
        "ctl socket client disconnect",
        "ctl socket client disconnect x",
        "ctl socket export add",
        "ctl socket export add --cache sometimes a",
        "ctl socket export add --temporary --read-only a",
        "ctl socket export add --ref-batch 2000000 a",
        "ctl socket export remove",
        "ctl socket reload a",
        "ctl socket resize a",
        "ctl socket compact",
        "ctl socket resize a 100MB",
        "ctl socket snapshot",
        "ctl socket snapshot list",
        "ctl socket snapshot create a",
        "ctl socket snapshot apply a b"
      })
  void misuseOfTheControlSocketIsOneSentence(String line) {
    assertMisuse(line);
  }

  private void assertMisuse(String line) {
    assertEquals(ExitCode.USAGE, run(line.split(" ", -1)));
    assertOneSentence();
    assertTrue(err.toString().contains("--help"), err.toString());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "serve %s",
        "serve --config %s",
        "serve --temporary %s",
        "serve --snapshot a %s",
        "info %s",
        "check %s",
        "check -r all %s",
        "resize %s 1G",
        "rebase -b  %s",
        "rebase -u -b b -F raw %s",
        "commit %s",
        "compact %s",
        "snapshot list %s",
        "snapshot create %s a",
        "snapshot apply %s a",
        "snapshot delete %s a",
        "snapshot rename %s a b",
        "ctl %s exports",
        "ctl %s reload",
        "ctl %s export add a",
        "ctl %s snapshot list a"
      })
  void aMissingFileIsNamed(String line) {
    String path = directory.resolve("gone.qcow2").toString();
    assertEquals(ExitCode.FAILURE, run(line.formatted(path).split(" ", -1)));
    assertOneSentence();
    assertTrue(err.toString().contains(path), err.toString());
  }

  @Test
  void aConfigurationFileThatCannotBeUsedIsNamedWithTheLine() throws IOException {
    Path file = Files.writeString(directory.resolve("q.toml"), "listen = 'a'\nlissten = 'b'\n");
    assertEquals(ExitCode.FAILURE, run("serve", "--config", file.toString()));
    assertOneSentence();
    assertEquals(
        "qnbd: " + file + ":2: lissten is not known here; did you mean 'listen'?\n",
        err.toString());
  }

  @Test
  void anExportForTlsClientsNeedsTls() throws IOException {
    Path file =
        Files.writeString(
            directory.resolve("q.toml"), "export.a = {path = 'a', tls-required = true}");
    assertEquals(ExitCode.FAILURE, run("serve", "--config", file.toString()));
    assertOneSentence();
    assertTrue(err.toString().contains("TLS"), err.toString());
  }
}
