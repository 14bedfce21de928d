package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd info}. */
@Command(
    name = "info",
    header = "Say what an image is.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Says what an image is: its format, sizes, features, backing file, snapshots and bitmaps. "
          + "Reads the named file only and, without --backing-chain, never opens a file that the "
          + "image names."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:the image could not be read; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd info disk.qcow2",
      "  qnbd info --backing-chain top.qcow2   and what lies below",
      "  qnbd info -U --json disk.qcow2        also while a server has it open"
    })
final class InfoCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(paramLabel = "PATH", description = "The image.")
  private Path path = Path.of("");

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "Read the file as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat format;

  @Option(
      names = "--json",
      description = "Print a JSON object; where qemu-img info has a field, the name is the same.")
  private boolean json;

  @Option(
      names = {"-U", "--force-share"},
      description = {
        "Look also when another process has the image open for writing; what is read may then be "
            + "inconsistent."
      })
  private boolean forceShare;

  @Option(
      names = "--backing-chain",
      description = "Describe also the backing file, its backing file, and so on.")
  private boolean backingChain;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = {
        "Which backing files --backing-chain opens: none, same-directory (the default) or any."
      })
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  InfoCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    OpenOptions options =
        OpenOptions.DEFAULT
            .withFormat(format)
            .withReadOnly(true)
            .withBackingPolicy(backingPolicy)
            .withForceShare(forceShare);
    if (backingChain) {
      List<ImageReport> chain = DiskImages.inspectChain(path, options);
      terminal.out().println(json ? InfoAnswer.json(chain) : InfoAnswer.text(chain));
    } else {
      ImageReport report = DiskImages.inspect(path, options);
      terminal.out().println(json ? InfoAnswer.json(report) : InfoAnswer.text(report));
    }
    return ExitCode.OK;
  }
}
