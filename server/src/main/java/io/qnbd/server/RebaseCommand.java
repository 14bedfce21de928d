package io.qnbd.server;

import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.RebaseOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd rebase}. */
@Command(
    name = "rebase",
    header = "Give an image another backing file, or none.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Changes the backing file of a qcow2 image that nobody has open. The disk reads as before: "
          + "where the new backing file differs from the old one, the old bytes are written into "
          + "the image. A crash in the middle leaves the image with the old backing file or with "
          + "the new one, and whole."
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
      "  qnbd rebase -b newer.qcow2 -F qcow2 overlay.qcow2",
      "  qnbd rebase -b '' overlay.qcow2    it needs no backing file any more",
      "  qnbd rebase -u -b moved/base.qcow2 -F qcow2 overlay.qcow2    it was only moved"
    })
final class RebaseCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(paramLabel = "PATH", description = "The image.")
  private Path path = Path.of("");

  @Option(
      names = {"-b", "--backing"},
      paramLabel = "FILE",
      required = true,
      description = {
        "The new backing file; a relative name starts at the image's directory. An empty name "
            + "means none."
      })
  private String backing = "";

  @Option(
      names = {"-F", "--backing-format"},
      paramLabel = "FORMAT",
      description = "Format of the new backing file, qcow2 or raw; required with one.")
  private @Nullable ImageFormat backingFormat;

  @Option(
      names = {"-u", "--unsafe"},
      description = {
        "Change the name only, and look at no backing file: right when the file was moved or "
            + "renamed, else the disk reads otherwise afterwards."
      })
  private boolean unsafe;

  @Mixin private ChangingOptions changing = new ChangingOptions();

  @Option(names = "--json", description = "Print a JSON object that describes the image, as info.")
  private boolean json;

  RebaseCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    RebaseOptions rebase =
        CreateSettings.backing(backing, backingFormat, "-F qcow2 or -F raw", unsafe);
    OpenOptions options = changing.open();
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      DiskImages.rebase(path, options, rebase, progress);
    }
    if (json) {
      terminal.out().println(InfoAnswer.json(DiskImages.inspect(path, options.withReadOnly(true))));
    } else if (!changing.quiet()) {
      terminal
          .out()
          .println(
              Printable.text(
                  backing.isEmpty()
                      ? "%s has no backing file any more".formatted(path)
                      : "the backing file of %s is %s".formatted(path, backing)));
    }
    return ExitCode.OK;
  }
}
