package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.server.config.Sizes;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd measure}. */
@Command(
    name = "measure",
    header = "Say how large a new image would be.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Says how many bytes a new image's file takes: as much as is required for what SOURCE holds "
          + "now (or for an empty disk of --size), and once the disk is written to everywhere. "
          + "Compression is not taken into account."
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
      "  qnbd measure -O qcow2 disk.raw",
      "  qnbd measure -O qcow2 -o cluster_size=2M --size 1T"
    })
final class MeasureCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(
      arity = "0..1",
      paramLabel = "SOURCE",
      description = "The image or URI that would be converted.")
  private @Nullable String source;

  @Option(
      names = "--size",
      paramLabel = "SIZE",
      description = "Measure for an empty disk of this size instead.")
  private @Nullable ByteCount size;

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "Read SOURCE as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat sourceFormat;

  @Option(
      names = {"-O", "--target-format"},
      paramLabel = "FORMAT",
      description = "qcow2 or raw. Default: raw, as qemu-img has it.")
  private ImageFormat targetFormat = ImageFormat.RAW;

  @Option(
      names = {"-o", "--options"},
      paramLabel = "NAME=VALUE[,...]",
      description = "Properties of the new image, as for 'qnbd create'. May be repeated.")
  private List<String> properties = new ArrayList<>();

  @Option(
      names = {"-l", "--snapshot"},
      paramLabel = "SNAPSHOT",
      description = "Measure this internal snapshot, by name or id, instead of the disk.")
  private @Nullable String snapshot;

  @Option(names = "--json", description = "Print a JSON object with qemu-img measure's names.")
  private boolean json;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = "Which backing files SOURCE may name: none, same-directory (default) or any.")
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(
      names = {"-U", "--force-share"},
      description = "Look also when another process has SOURCE open for writing.")
  private boolean forceShare;

  @Mixin private PassphraseOptions.OfSource sourcePassphrase = new PassphraseOptions.OfSource();

  MeasureCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  /** Bytes of the file, with what there is to hold now, and with all of the disk. */
  private record Measured(long required, long full) {}

  @Override
  public Integer call() throws IOException {
    Measured measured = measure();
    if (json) {
      terminal
          .out()
          .println(
              Json.object(out -> {
                out.writeNumberProperty("required", measured.required());
                out.writeNumberProperty("fully-allocated", measured.full());
              }));
    } else {
      terminal
          .out()
          .println(
              "required:        %s%nfully allocated: %s"
                  .formatted(
                      Sizes.textWithBytes(measured.required()),
                      Sizes.textWithBytes(measured.full())));
    }
    return ExitCode.OK;
  }

  private Measured measure() throws IOException {
    if (source != null && size == null) {
      return ofImage(source, sourcePassphrase.read());
    }
    if (source == null && size != null) {
      if (sourcePassphrase.read() != null) {
        throw new UsageException("a source's passphrase goes with a SOURCE");
      }
      return ofEmpty(size.bytes());
    }
    throw new UsageException("measure either a SOURCE or a --size");
  }

  private Measured ofEmpty(long bytes) throws IOException {
    CreateOptions options = options(bytes);
    if (targetFormat == ImageFormat.RAW) {
      return new Measured(bytes, bytes);
    }
    Qcow2Size file = new Qcow2Size(options);
    long full = file.fullBytes(bytes);
    return new Measured(full - file.dataBytes(bytes), full);
  }

  private Measured ofImage(String name, @Nullable Passphrase passphrase) throws IOException {
    OpenOptions reading =
        OpenOptions.DEFAULT
            .withFormat(sourceFormat)
            .withReadOnly(true)
            .withBackingPolicy(backingPolicy)
            .withForceShare(forceShare)
            .withSnapshot(snapshot)
            .withPassphrase(passphrase);
    try (DiskImage image = Disks.open(name, reading, 1)) {
      long bytes = image.virtualBytes();
      CreateOptions options = options(bytes);
      if (targetFormat == ImageFormat.RAW) {
        return new Measured(bytes, bytes);
      }
      Qcow2Size file = new Qcow2Size(options);
      long full = file.fullBytes(bytes);
      long data = file.dataBytes(bytes);
      // With a backing file nobody knows how much of it the two share: at worst nothing.
      long used = options.backingFile() == null ? file.usedBytes(image) : data;
      return new Measured(full - data + used, full);
    }
  }

  private CreateOptions options(long bytes) {
    CreateSettings settings = new CreateSettings();
    properties.forEach(settings::addList);
    return settings.toOptions(targetFormat, bytes, null);
  }
}
