package io.qnbd.server;

import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageLockedException;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Snapshots;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ScopeType;

/** {@code qnbd snapshot}: internal snapshots of an image at rest. */
@Command(
    name = "snapshot",
    scope = ScopeType.INHERIT,
    header = "List, take, apply, delete and rename internal snapshots.",
    synopsisHeading = "%nUsage: ",
    synopsisSubcommandLabel = "COMMAND",
    description = {
      "Works on the internal snapshots of a qcow2 image that nobody has open. For an image that "
          + "qnbd serves there is 'qnbd ctl'. A crash in the middle loses no data."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    commandListHeading = "%nCommands:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failed; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd snapshot create disk.qcow2 before-upgrade",
      "  qnbd snapshot list disk.qcow2",
      "  qnbd snapshot apply disk.qcow2 before-upgrade    back to it",
      "  qnbd snapshot rename disk.qcow2 before-upgrade old",
      "  qnbd snapshot delete disk.qcow2 old"
    })
final class SnapshotCommand {
  private final Terminal terminal;

  /** A change of an open image's snapshots. */
  private interface Change {
    void make(Snapshots snapshots) throws IOException;
  }

  SnapshotCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Command(
      name = "list",
      header = "List an image's snapshots.",
      description = "Lists the snapshots.")
  int list(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Option(
              names = "--json",
              description = "Print a JSON object, its fields named as by qemu-img info.")
          boolean json,
      @Option(
              names = {"-U", "--force-share"},
              description = "Look also when another process has the image open for writing.")
          boolean forceShare)
      throws IOException {
    List<ImageReport.Snapshot> snapshots = snapshotsOf(path, forceShare);
    terminal
        .out()
        .println(json ? SnapshotAnswer.json(path, snapshots) : SnapshotAnswer.text(snapshots));
    return ExitCode.OK;
  }

  @Command(
      name = "create",
      header = "Take a snapshot.",
      description = "Keeps the disk as it is now under a name.")
  int create(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A name that no snapshot has.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, snapshots -> snapshots.create(name));
    return told(options, "took snapshot %s of %s".formatted(name, path));
  }

  @Command(
      name = "apply",
      header = "Go back to a snapshot.",
      description = {
        "Makes the disk what it was when the snapshot was taken. What was written since is lost, "
            + "unless another snapshot has it; the snapshot stays."
      })
  int apply(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A snapshot's name or id.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      DiskImages.applySnapshot(path, name, options.open(), progress);
    } catch (ImageLockedException e) {
      throw new IOException(
          "%s is open elsewhere: a snapshot is applied to an image at rest only".formatted(path),
          e);
    }
    return told(options, "%s is again as in snapshot %s".formatted(path, name));
  }

  @Command(
      name = "delete",
      header = "Delete a snapshot.",
      description = "Forgets a snapshot and frees the space that it alone takes.")
  int delete(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A snapshot's name or id.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, snapshots -> snapshots.delete(name));
    return told(options, "deleted snapshot %s of %s".formatted(name, path));
  }

  @Command(
      name = "rename",
      header = "Rename a snapshot.",
      description = "Gives a snapshot another name.")
  int rename(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A snapshot's name or id.") String name,
      @Parameters(paramLabel = "NEW-NAME", description = "A name that no snapshot has.")
          String newName,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, snapshots -> snapshots.rename(name, newName));
    return told(options, "snapshot %s of %s is now %s".formatted(name, path, newName));
  }

  private static List<ImageReport.Snapshot> snapshotsOf(Path path, boolean forceShare)
      throws IOException {
    ImageReport report;
    try {
      report =
          DiskImages.inspect(
              path, OpenOptions.DEFAULT.withReadOnly(true).withForceShare(forceShare));
    } catch (ImageLockedException e) {
      throw new IOException(
          "%s is open elsewhere: look with -U, or ask its server with 'qnbd ctl'".formatted(path),
          e);
    }
    ImageReport.Qcow2Details qcow2 = report.qcow2();
    if (qcow2 == null) {
      throw new UnsupportedImageException(path + ": a raw image has no snapshots");
    }
    return qcow2.snapshots();
  }

  private void change(Path path, ChangingOptions options, Change change) throws IOException {
    OpenOptions open = options.open();
    try (ProgressLine progress = new ProgressLine(terminal, path);
        DiskImage image = DiskImages.open(path, open, progress)) {
      change.make(image.snapshots());
    } catch (ImageLockedException e) {
      throw new IOException(
          "%s is open elsewhere: if qnbd serves it with --control, use 'qnbd ctl'".formatted(path),
          e);
    }
  }

  private int told(ChangingOptions options, String sentence) {
    if (!options.quiet()) {
      terminal.out().println(Printable.text(sentence));
    }
    return ExitCode.OK;
  }
}
