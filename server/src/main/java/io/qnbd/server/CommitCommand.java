package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd commit}. */
@Command(
    name = "commit",
    header = "Write an overlay's changes into its backing file.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Writes what a qcow2 image has of its own into its backing file, which grows if the image's"
          + " disk is longer, and then empties the image. Nobody may have either of them open."
          + " Other overlays of the same backing file are worthless afterwards.",
      "",
      "A crash in the middle leaves an image that reads as before; commit it again."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failed; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd commit overlay.qcow2",
      "  qnbd commit -d overlay.qcow2    and leave the overlay as it is, to delete it"
    })
final class CommitCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(paramLabel = "PATH", description = "The image whose changes are written.")
  private Path path = Path.of("");

  @Option(
      names = {"-d", "--keep"},
      description = "Don't empty the image.")
  private boolean keep;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      defaultValue = "same-directory",
      description = {
        "Which backing files the image may name: none, same-directory or any, as for serve. "
            + "Default: ${DEFAULT-VALUE}."
      })
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  @Option(
      names = {"-q", "--quiet"},
      description = "Say nothing when all is well.")
  private boolean quiet;

  CommitCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    OpenOptions options =
        OpenOptions.DEFAULT
            .withFormat(ImageFormat.QCOW2)
            .withBackingPolicy(backingPolicy)
            .withPassphrase(passphrase.read());
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      DiskImages.commit(path, options, keep, progress);
    }
    if (!quiet) {
      terminal.out().println(Printable.text("committed " + path));
    }
    return ExitCode.OK;
  }
}
