package io.qnbd.server;

import io.qnbd.server.manual.Completion;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code qnbd completion}. */
@Command(
    name = "completion",
    header = "Print a script that completes command lines.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Prints a script with which a shell completes the commands and options of qnbd. The Debian "
          + "package installs it for all three shells."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {"0:done", "64:the command line makes no sense"},
    footerHeading = "%nExamples:%n",
    footer = {
      "  source <(qnbd completion bash)",
      "  qnbd completion zsh > ~/.zsh/functions/_qnbd",
      "  qnbd completion fish > ~/.config/fish/completions/qnbd.fish"
    })
final class CompletionCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(paramLabel = "SHELL", description = "bash, zsh or fish.")
  private Completion shell = Completion.BASH;

  CompletionCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() {
    CommandLine root = spec.root().commandLine();
    terminal.out().print(shell.script(root));
    return ExitCode.OK;
  }
}
