package io.qnbd.server;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.RepairReport;
import io.qnbd.image.RepairScope;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd check}. */
@Command(
    name = "check",
    header = "Check a qcow2 image's metadata, and repair it.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Checks that each cluster is referenced as often as it is counted, "
          + "and that no reference leads astray. Without --repair it only reads.",
      "",
      "A repair is made in an order that a crash or power cut can't hurt: what could be read before"
          + " can be read after it, and the next repair goes on from there."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes (those of qemu-img check, but 64):%n",
    exitCodeList = {
      "0:the image is in order, or is so after the repair",
      "1:the image could not be checked; standard error says why",
      "2:the image is damaged: data is lost or in danger",
      "3:clusters are leaked: wasted space, no danger to data",
      "63:the format has no check (raw)",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd check disk.qcow2",
      "  qnbd check --json disk.qcow2",
      "  qnbd check --repair leaks disk.qcow2    give leaked clusters back",
      "  qnbd check -r all disk.qcow2            mend everything that can be mended"
    })
final class CheckCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(paramLabel = "PATH", description = "The image. It must not be open for writing.")
  private Path path = Path.of("");

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "Read the file as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat format;

  @Option(
      names = "--json",
      description = "Print a JSON object; where qemu-img check has a field, the name is the same.")
  private boolean json;

  @Option(
      names = {"-U", "--force-share"},
      description = {
        "Look also when another process has the image open for writing; what it is just changing "
            + "then looks like leaks or damage."
      })
  private boolean forceShare;

  @Option(
      names = {"-r", "--repair"},
      paramLabel = "leaks|all",
      description = {
        "Repair the image, which nobody may have open: leaks gives back clusters that nothing "
            + "refers to; all mends counts, flags and tables, too. An entry whose data is not in "
            + "the file reads as zeroes afterwards, and the answer says so."
      })
  private @Nullable RepairScope repair;

  CheckCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    if (repair != null && forceShare) {
      throw new UsageException("an image that is open elsewhere can't be repaired: leave -U out");
    }
    OpenOptions options =
        OpenOptions.DEFAULT.withFormat(format).withReadOnly(true).withForceShare(forceShare);
    if (DiskImages.inspect(path, options).format() == ImageFormat.RAW) {
      terminal
          .err()
          .println(
              "qnbd: %s is a raw image, which has no metadata to check"
                  .formatted(Printable.text(path.toString())));
      return ExitCode.NO_CHECK;
    }
    return repair == null ? check(options) : repair(repair);
  }

  private int check(OpenOptions options) throws IOException {
    CheckReport report;
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      report = DiskImages.check(path, options, progress);
    }
    terminal.out().println(json ? CheckAnswer.json(path, report) : CheckAnswer.text(path, report));
    return CheckAnswer.exitCode(report);
  }

  private int repair(RepairScope scope) throws IOException {
    RepairReport report;
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      report = DiskImages.repair(path, scope, progress);
    }
    terminal.out().println(json ? CheckAnswer.json(path, report) : CheckAnswer.text(path, report));
    return CheckAnswer.exitCode(report.after());
  }
}
