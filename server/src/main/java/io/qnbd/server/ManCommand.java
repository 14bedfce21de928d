package io.qnbd.server;

import io.qnbd.server.manual.ManPages;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code qnbd man}. */
@Command(
    name = "man",
    header = "Print a manual page.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Prints the manual page of qnbd or of one of its commands in the form that man(1) reads, or "
          + "writes them all into a directory."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {"0:done", "1:a file could not be written", "64:there is no such command"},
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd man serve | man -l -",
      "  qnbd man ctl export add | man -l -",
      "  qnbd man --directory /usr/local/share/man/man1"
    })
final class ManCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(arity = "0..*", paramLabel = "COMMAND", description = "The command's words.")
  private List<String> words = new ArrayList<>();

  @Option(
      names = "--directory",
      paramLabel = "DIR",
      description = "Write each page into a file of this directory: qnbd.1, qnbd-serve.1, ...")
  private @Nullable Path directory;

  ManCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    Map<String, String> pages = ManPages.of(spec.root().commandLine(), Qnbd.version());
    if (directory != null) {
      Files.createDirectories(directory);
      for (Map.Entry<String, String> page : pages.entrySet()) {
        Files.writeString(directory.resolve(page.getKey() + ".1"), page.getValue());
      }
      return ExitCode.OK;
    }
    String name = words.isEmpty() ? "qnbd" : "qnbd-" + String.join("-", words);
    String page = pages.get(name);
    if (page == null) {
      throw new UsageException("there is no command 'qnbd " + String.join(" ", words) + "'");
    }
    terminal.out().print(page);
    return ExitCode.OK;
  }
}
