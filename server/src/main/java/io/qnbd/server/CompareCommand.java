package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.server.transfer.DiskCompare;
import java.io.IOException;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd compare}. */
@Command(
    name = "compare",
    header = "Say whether two disks hold the same.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Compares what two disks hold, whatever their formats. One that is longer is the same if it "
          + "holds zeroes behind the end of the other. Either may be a qcow2 or raw file or the "
          + "URI of an NBD export."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes (those of qemu-img compare, but 64):%n",
    exitCodeList = {
      "0:they hold the same",
      "1:they differ",
      "2:they could not be compared; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd compare disk.raw disk.qcow2",
      "  qnbd compare -q a.qcow2 nbd://127.0.0.1/a && echo same"
    })
final class CompareCommand implements Callable<Integer> {
  private static final int DIFFERENT = 1;
  private static final int FAILED = 2;
  private static final int THREADS = 4;

  private final Terminal terminal;

  @Parameters(index = "0", paramLabel = "FIRST", description = "An image or URI.")
  private String first = "";

  @Parameters(index = "1", paramLabel = "SECOND", description = "The other one.")
  private String second = "";

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "Read FIRST as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat firstFormat;

  @Option(
      names = {"-F", "--second-format"},
      paramLabel = "FORMAT",
      description = "Read SECOND as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat secondFormat;

  @Option(
      names = {"-s", "--strict"},
      description = "They differ also if their sizes or what is allocated in them do.")
  private boolean strict;

  @Option(names = "--json", description = "Print a JSON object.")
  private boolean json;

  @Option(
      names = {"-q", "--quiet"},
      description = "Say nothing but errors; the exit code tells.")
  private boolean quiet;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = "Which backing files they may name: none, same-directory (default) or any.")
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(
      names = {"-U", "--force-share"},
      description = {
        "Read also what another process has open for writing; what is read may then be"
            + " inconsistent."
      })
  private boolean forceShare;

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  @Mixin private PassphraseOptions.OfSecond secondPassphrase = new PassphraseOptions.OfSecond();

  CompareCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  /** How they differ; a null sentence if they don't. An offset of -1 is none. */
  private record Verdict(@Nullable String difference, long offset, boolean sizesDiffer) {}

  @Override
  public Integer call() {
    try {
      OpenOptions two = options(secondFormat, secondPassphrase.read(passphrase));
      OpenOptions one = options(firstFormat, passphrase.read());
      Verdict verdict = compare(one, two);
      if (!quiet) {
        tell(verdict);
      }
      return verdict.difference() == null ? ExitCode.OK : DIFFERENT;
    } catch (IOException e) {
      terminal.err().println("qnbd: " + Failures.sentence(e));
      return FAILED;
    }
  }

  private OpenOptions options(@Nullable ImageFormat format, @Nullable Passphrase opening) {
    return OpenOptions.DEFAULT
        .withFormat(format)
        .withReadOnly(true)
        .withBackingPolicy(backingPolicy)
        .withForceShare(forceShare)
        .withPassphrase(opening);
  }

  private Verdict compare(OpenOptions ofFirst, OpenOptions ofSecond) throws IOException {
    try (DiskImage one = Disks.open(first, ofFirst, THREADS);
        DiskImage two = Disks.open(second, ofSecond, THREADS)) {
      return compare(one, two);
    }
  }

  private Verdict compare(DiskImage one, DiskImage two) throws IOException {
    boolean sizesDiffer = one.virtualBytes() != two.virtualBytes();
    if (strict && sizesDiffer) {
      return new Verdict("the sizes differ", -1, true);
    }
    if (strict) {
      long at = DiskCompare.firstAllocationDifference(one, two, one.virtualBytes());
      if (at >= 0) {
        return new Verdict("what is allocated differs at offset " + at, at, false);
      }
    }
    try (ProgressLine progress = new ProgressLine(terminal, first)) {
      long at = new DiskCompare(one, two, THREADS).firstDifference(progress);
      return new Verdict(at < 0 ? null : "the contents differ at offset " + at, at, sizesDiffer);
    }
  }

  private void tell(Verdict verdict) {
    if (json) {
      terminal
          .out()
          .println(
              Json.object(out -> {
                out.writeBooleanProperty("identical", verdict.difference() == null);
                out.writeBooleanProperty("sizes-differ", verdict.sizesDiffer());
                if (verdict.difference() != null) {
                  out.writeStringProperty("difference", verdict.difference());
                }
                if (verdict.offset() >= 0) {
                  out.writeNumberProperty("offset", verdict.offset());
                }
              }));
      return;
    }
    String same =
        verdict.sizesDiffer()
            ? "the images are identical, but for zeroes at the end of the longer one"
            : "the images are identical";
    terminal.out().println(verdict.difference() == null ? same : verdict.difference());
  }
}
