package io.qnbd.server;

import io.qnbd.image.AmendOptions;
import io.qnbd.image.DiskImages;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.RebaseOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd amend}. */
@Command(
    name = "amend",
    header = "Change a qcow2 image's version, reference counts or passphrases.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Changes properties that 'qnbd create' gave an image that nobody has open. The disk reads as"
          + " before. A crash in the middle leaves a whole image that has some of what was asked;"
          + " the same command then does the rest.",
      "",
      "compat is 0.10 or 1.1, lazy_refcounts on or off, refcount_bits a power of two from 1 to 64."
          + " backing_file and backing_fmt change the name alone, as 'rebase -u' does."
          + " encrypt.state=active adds a passphrase to a LUKS image, encrypt.state=inactive"
          + " removes one. Everything else can't be changed in place: convert the image."
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
      "  qnbd amend -o compat=1.1 old.qcow2",
      "  qnbd amend -o compat=1.1,lazy_refcounts=on old.qcow2",
      "  qnbd amend -o refcount_bits=64 disk.qcow2",
      "  qnbd amend -o encrypt.state=active --passphrase-file key --new-passphrase-file key2"
          + " disk.qcow2",
      "  qnbd amend -o encrypt.state=inactive --passphrase-file key2 --old-passphrase-file key"
          + " disk.qcow2"
    })
final class AmendCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(paramLabel = "PATH", description = "The image.")
  private Path path = Path.of("");

  @Option(
      names = {"-o", "--options"},
      paramLabel = "NAME=VALUE[,...]",
      required = true,
      description = "What is to change. May be repeated.")
  private List<String> properties = new ArrayList<>();

  @Mixin private ChangingOptions changing = new ChangingOptions();

  @Mixin private PassphraseOptions.OfSlots slots = new PassphraseOptions.OfSlots();

  @Option(
      names = "--force",
      description = {
        "Remove a passphrase also if the one that opens the image now does not open it afterwards."
            + " Without any passphrase its data is lost."
      })
  private boolean force;

  @Option(names = "--json", description = "Print a JSON object that describes the image, as info.")
  private boolean json;

  AmendCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    CreateSettings settings = new CreateSettings();
    properties.forEach(settings::addList);
    PassphraseOptions own = changing.passphrase();
    AmendOptions amend = settings.toAmendment(slots.readNew(own), slots.readOld(own), force);
    @Nullable RebaseOptions backing = settings.toBackingName();
    OpenOptions options = changing.open();
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      DiskImages.amend(path, options, amend, progress);
      if (backing != null) {
        DiskImages.rebase(path, options.withPassphrase(null), backing, progress);
      }
    }
    if (json) {
      terminal.out().println(InfoAnswer.json(DiskImages.inspect(path, options.withReadOnly(true))));
    } else if (!changing.quiet()) {
      terminal.out().println(Printable.text("amended %s".formatted(path)));
    }
    return ExitCode.OK;
  }
}
