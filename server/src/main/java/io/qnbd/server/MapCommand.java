package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.ClusterKind;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.picture.Cells;
import io.qnbd.server.picture.ClusterPicture;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd map}. */
@Command(
    name = "map",
    header = "Say where an image's data is, or draw it.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Says for each range of the disk what it is (data, compressed, zeroes), in which file of the "
          + "backing chain it is, and where in that file. Reads tables only, no data.",
      "With --svg, draws what each cluster of a qcow2 image's own file is used for: data, zeroes, "
          + "compressed data, what snapshots share, metadata, leaks, free space and holes."
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
      "  qnbd map disk.qcow2",
      "  qnbd map --json disk.qcow2           for programs, by qemu-img's names",
      "  qnbd map --svg disk.svg disk.qcow2   a picture for any browser"
    })
final class MapCommand implements Callable<Integer> {
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
      description = "Print a JSON array; the names are those of qemu-img map --output=json.")
  private boolean json;

  @Option(
      names = "--svg",
      paramLabel = "FILE",
      description = {
        "Draw the image's own file into FILE, which is written over. A file larger than 4096 "
            + "clusters is drawn in cells of several."
      })
  private @Nullable Path svg;

  @Option(
      names = {"-s", "--start-offset"},
      paramLabel = "BYTES",
      description = "Begin there. Default: 0.")
  private ByteCount start = new ByteCount(0);

  @Option(
      names = {"-l", "--max-length"},
      paramLabel = "BYTES",
      description = "Go so far at most. Default: to the end of the disk.")
  private ByteCount lengthMax = new ByteCount(Long.MAX_VALUE);

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = "Which backing files to open: none, same-directory (the default) or any.")
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(
      names = {"-U", "--force-share"},
      description = {
        "Look also when another process has the image open for writing; what is read may then be "
            + "inconsistent."
      })
  private boolean forceShare;

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  MapCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    if (svg != null && json) {
      throw new UsageException("--svg draws and --json prints: choose one");
    }
    OpenOptions options =
        OpenOptions.DEFAULT
            .withFormat(format)
            .withReadOnly(true)
            .withBackingPolicy(backingPolicy)
            .withForceShare(forceShare)
            .withPassphrase(passphrase.read());
    if (svg != null) {
      if (options.passphrase() != null) {
        throw new UsageException("--svg draws the file, which takes no passphrase");
      }
      draw(svg, options);
    } else {
      print(options);
    }
    return ExitCode.OK;
  }

  private void print(OpenOptions options) throws IOException {
    try (DiskImage image = DiskImages.open(path, options)) {
      List<String> files = new ArrayList<>();
      if (!json) {
        for (ImageReport report : DiskImages.inspectChain(path, options)) {
          files.add(Printable.text(report.path().toString()));
        }
      }
      long from = start.bytes();
      if (from > image.virtualBytes()) {
        throw new UsageException(
            "the disk ends at %d, before --start-offset %d".formatted(image.virtualBytes(), from));
      }
      MapAnswer answer = new MapAnswer(terminal.out(), json, from, files);
      image.map(from, Math.min(lengthMax.bytes(), image.virtualBytes() - from), answer);
      answer.end();
    }
  }

  private void draw(Path target, OpenOptions options) throws IOException {
    ImageReport report = DiskImages.inspect(path, options);
    ImageReport.Qcow2Details qcow2 = report.qcow2();
    if (qcow2 == null) {
      throw new IOException(path + ": a raw image has no clusters to draw");
    }
    Cells cells = new Cells();
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      DiskImages.layout(path, options, progress, cells);
    }
    Path name = path.getFileName();
    String facts =
        "%s disk  \u00b7  file of %s, %s on the host  \u00b7  clusters of %s%s"
            .formatted(
                Sizes.text(report.virtualBytes()),
                Sizes.text(report.fileBytes()),
                Sizes.text(report.diskBytes()),
                Sizes.text(qcow2.clusterBytes()),
                snapshots(qcow2.snapshots().size()));
    Files.writeString(
        target, ClusterPicture.svg(String.valueOf(name == null ? path : name), facts, cells));
    long leaked = cells.total(ClusterKind.LEAKED);
    if (leaked > 0) {
      terminal
          .err()
          .println(
              "qnbd: %s: %d leaked clusters; see 'qnbd check'"
                  .formatted(Printable.text(path.toString()), leaked));
    }
  }

  private static String snapshots(int count) {
    return switch (count) {
      case 0 -> "";
      case 1 -> "  \u00b7  1 snapshot";
      default -> "  \u00b7  " + count + " snapshots";
    };
  }
}
