package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.Compaction;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.server.config.Sizes;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd compact}. */
@Command(
    name = "compact",
    header = "Give space that an image does not use back to the host.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Moves what stands at the end of a qcow2 image's file to free clusters further to the front,"
          + " gives the space of free clusters back to the host and shortens the file. What the"
          + " guest has not trimmed counts as used. Nobody may have the image open; for one that"
          + " qnbd serves there is 'qnbd ctl SOCKET compact'. A crash in the middle loses nothing.",
      "",
      "What snapshots share and compressed clusters stay where they are; the answer says how much."
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
    footer = {"  qnbd compact disk.qcow2", "  qnbd compact --json disk.qcow2"})
final class CompactCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(paramLabel = "PATH", description = "The image.")
  private Path path = Path.of("");

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      defaultValue = "same-directory",
      description = {
        "Which backing files the image may name: none, same-directory or any, as for serve. "
            + "Default: ${DEFAULT-VALUE}."
      })
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(
      names = "--json",
      description = {
        "Print a JSON object: the file's length before and after, and how many clusters were moved "
            + "and how many had to stay."
      })
  private boolean json;

  @Option(
      names = {"-q", "--quiet"},
      description = "Say nothing when all is well.")
  private boolean quiet;

  CompactCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    OpenOptions options =
        OpenOptions.DEFAULT.withFormat(ImageFormat.QCOW2).withBackingPolicy(backingPolicy);
    Compaction done;
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      done = DiskImages.compact(path, options, progress);
    }
    if (json) {
      terminal
          .out()
          .println(
              Json.object(fields -> {
                fields.writeStringProperty("filename", path.toString());
                fields.writeNumberProperty("old-length", done.oldFileBytes());
                fields.writeNumberProperty("length", done.fileBytes());
                fields.writeNumberProperty("moved", done.movedClusters());
                fields.writeNumberProperty("stayed", done.stayedClusters());
              }));
    } else if (!quiet) {
      terminal.out().println(Printable.text(path + ": " + sentence(done)));
    }
    return ExitCode.OK;
  }

  /** What was done, for a person. */
  static String sentence(Compaction done) {
    String stayed =
        done.stayedClusters() == 0
            ? ""
            : "; %d at the end could not be moved".formatted(done.stayedClusters());
    return "the file had %s and has %s; %d clusters were moved%s"
        .formatted(
            Sizes.text(done.oldFileBytes()),
            Sizes.text(done.fileBytes()),
            done.movedClusters(),
            stayed);
  }
}
