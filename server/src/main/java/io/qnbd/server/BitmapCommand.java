package io.qnbd.server;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageLockedException;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ScopeType;

/** {@code qnbd bitmap}: persistent dirty bitmaps of an image at rest. */
@Command(
    name = "bitmap",
    scope = ScopeType.INHERIT,
    header = "List, add, remove and change persistent dirty bitmaps.",
    synopsisHeading = "%nUsage: ",
    synopsisSubcommandLabel = "COMMAND",
    description = {
      "Works on the persistent dirty bitmaps of a qcow2 image that nobody has open. An enabled"
          + " bitmap records which parts of the disk are changed, by qnbd and by QEMU, which is"
          + " what an incremental backup copies. For an image that qnbd serves there is 'qnbd"
          + " ctl'. A bitmap that was being written to when its program or host crashed can't be"
          + " believed; it is listed as inconsistent and can be removed."
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
      "  qnbd bitmap add disk.qcow2 monday",
      "  qnbd bitmap list disk.qcow2",
      "  qnbd bitmap add --replace monday disk.qcow2 tuesday    from now on it records, not monday",
      "  qnbd bitmap merge disk.qcow2 week monday               what monday has, week has too",
      "  qnbd bitmap remove disk.qcow2 monday"
    })
final class BitmapCommand {
  private final Terminal terminal;

  /** What a new bitmap is like; the same at rest and live. */
  static final class Adding {
    @Option(
        names = {"-g", "--granularity"},
        paramLabel = "SIZE",
        description = {
          "What one bit stands for: a power of two from 512 to 2G. Default: the image's cluster"
              + " size, but from 4K to 64K."
        })
    private @Nullable ByteCount granularity;

    @Option(names = "--disabled", description = "Add a bitmap that does not record.")
    private boolean disabled;

    @Option(
        names = "--replace",
        paramLabel = "OLD",
        description = {
          "Disable the bitmap OLD at the moment at which the new one begins to record, so that no"
              + " change falls between the two."
        })
    private @Nullable String old;

    long granularityBytes() {
      return granularity == null ? 0 : granularity.bytes();
    }

    boolean enabled() {
      return !disabled;
    }

    @Nullable String replaced() {
      if (old != null && disabled) {
        throw new UsageException("--replace needs a bitmap that records: not with --disabled");
      }
      return old;
    }
  }

  /** A change of an open image's bitmaps. */
  private interface Change {
    void make(Bitmaps bitmaps) throws IOException;
  }

  BitmapCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Command(name = "list", header = "List an image's bitmaps.", description = "Lists the bitmaps.")
  int list(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Option(names = "--json", description = "Print a JSON object.") boolean json,
      @Option(
              names = {"-U", "--force-share"},
              description = {
                "Look also when another process has the image open for writing; bitmaps that it"
                    + " writes to are listed as inconsistent."
              })
          boolean forceShare)
      throws IOException {
    List<BitmapInfo> bitmaps = bitmapsOf(path, forceShare);
    terminal.out().println(json ? BitmapAnswer.json(path, bitmaps) : BitmapAnswer.text(bitmaps));
    return ExitCode.OK;
  }

  @Command(
      name = "add",
      header = "Add a bitmap.",
      description = "Adds a bitmap in which nothing is dirty, and which records from now on.")
  int add(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A name that no bitmap has.") String name,
      @Mixin Adding added,
      @Mixin ChangingOptions options)
      throws IOException {
    String old = added.replaced();
    change(
        path,
        options,
        bitmaps -> {
          if (old == null) {
            bitmaps.add(name, added.granularityBytes(), added.enabled());
          } else {
            bitmaps.replace(old, name, added.granularityBytes());
          }
        });
    return told(options, "added bitmap %s to %s".formatted(name, path));
  }

  @Command(
      name = "remove",
      header = "Remove a bitmap.",
      description = "Removes a bitmap, also one that is inconsistent.")
  int remove(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, bitmaps -> bitmaps.remove(name));
    return told(options, "removed bitmap %s of %s".formatted(name, path));
  }

  @Command(
      name = "enable",
      header = "Let a bitmap record.",
      description = "From now on, changes of the disk are recorded in the bitmap.")
  int enable(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, bitmaps -> bitmaps.enable(name));
    return told(options, "bitmap %s of %s is enabled".formatted(name, path));
  }

  @Command(
      name = "disable",
      header = "Keep a bitmap as it is.",
      description = "From now on, changes of the disk are not recorded in the bitmap.")
  int disable(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, bitmaps -> bitmaps.disable(name));
    return told(options, "bitmap %s of %s is disabled".formatted(name, path));
  }

  @Command(
      name = "clear",
      header = "Make nothing dirty.",
      description = "Forgets all that the bitmap has recorded.")
  int clear(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "A bitmap's name.") String name,
      @Mixin ChangingOptions options)
      throws IOException {
    change(path, options, bitmaps -> bitmaps.clear(name));
    return told(options, "cleared bitmap %s of %s".formatted(name, path));
  }

  @Command(
      name = "merge",
      header = "Add what another bitmap has.",
      description = "Makes dirty in NAME all that is dirty in SOURCE, of any granularity.")
  int merge(
      @Parameters(paramLabel = "IMAGE", description = "The image.") Path path,
      @Parameters(paramLabel = "NAME", description = "The bitmap that is changed.") String name,
      @Parameters(paramLabel = "SOURCE", description = "The bitmap that is read.") String source,
      @Option(
              names = {"-b", "--source-file"},
              paramLabel = "FILE",
              description = "The image that has SOURCE, of the same size. Default: IMAGE.")
          @Nullable Path sourceFile,
      @Mixin PassphraseOptions.OfSource sourcePassphrase,
      @Mixin ChangingOptions options)
      throws IOException {
    @Nullable Passphrase passphrase = sourcePassphrase.read(options.passphrase());
    if (passphrase != null && sourceFile == null) {
      throw new UsageException("a source's passphrase is for the image that -b names");
    }
    if (sourceFile == null) {
      change(path, options, bitmaps -> bitmaps.merge(name, source));
    } else {
      OpenOptions reading =
          OpenOptions.DEFAULT
              .withFormat(ImageFormat.QCOW2)
              .withReadOnly(true)
              .withBackingPolicy(options.backingPolicy())
              .withPassphrase(passphrase);
      try (DiskImage image = DiskImages.open(sourceFile, reading)) {
        change(path, options, bitmaps -> bitmaps.merge(name, image, source));
      }
    }
    return told(options, "merged bitmap %s into %s of %s".formatted(source, name, path));
  }

  private static List<BitmapInfo> bitmapsOf(Path path, boolean forceShare) throws IOException {
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
      throw new UnsupportedImageException(path + ": a raw image has no bitmaps");
    }
    return qcow2.bitmaps().stream()
        .map(found ->
            new BitmapInfo(found.name(), found.granularityBytes(), found.auto(), !found.inUse()))
        .toList();
  }

  private void change(Path path, ChangingOptions options, Change change) throws IOException {
    OpenOptions open = options.open();
    try (ProgressLine progress = new ProgressLine(terminal, path);
        DiskImage image = DiskImages.open(path, open, progress)) {
      change.make(image.bitmaps());
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
