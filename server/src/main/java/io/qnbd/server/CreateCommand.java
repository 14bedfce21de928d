package io.qnbd.server;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.server.config.Sizes;
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

/** {@code qnbd create}. */
@Command(
    name = "create",
    header = "Make an empty image.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Makes an empty image. It takes next to no space on the host until a guest writes to it. A "
          + "file that is there already is never touched."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:the image was made",
      "1:the image could not be made; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd create disk.qcow2 10G",
      "  qnbd create -o cluster_size=2M,lazy_refcounts=on disk.qcow2 1.5T",
      "  qnbd create -b base.qcow2 -F qcow2 overlay.qcow2    changes only, of base's size",
      "  qnbd create --preallocation falloc db.qcow2 100G   its space is set aside",
      "  qnbd create --encrypt luks --passphrase-file key disk.qcow2 10G",
      "  qnbd create -f raw disk.raw 512M"
    })
final class CreateCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(index = "0", paramLabel = "PATH", description = "The file to make.")
  private Path path = Path.of("");

  @Parameters(
      index = "1",
      arity = "0..1",
      paramLabel = "SIZE",
      description = {
        "Size of the virtual disk in bytes, or with a unit K, M, G, T, P or E (powers of 1024; 10G "
            + "is 10GiB). May be left out with a backing file: then it is that one's size."
      })
  private @Nullable ByteCount size;

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      defaultValue = "qcow2",
      description = "qcow2 or raw. Default: ${DEFAULT-VALUE}.")
  private ImageFormat format = ImageFormat.QCOW2;

  @Option(
      names = {"-o", "--options"},
      paramLabel = "NAME=VALUE[,...]",
      description = {
        "Properties of a qcow2 image by qemu-img's names: cluster_size, compat, refcount_bits, "
            + "lazy_refcounts, extended_l2, compression_type, preallocation, backing_file, "
            + "backing_fmt, size, data_file, data_file_raw, encrypt.format, each also with an "
            + "option of its own, below; and encrypt.iter-time, how long in ms it takes to try a "
            + "passphrase. May be repeated."
      })
  private List<String> properties = new ArrayList<>();

  @Option(
      names = {"-b", "--backing"},
      paramLabel = "FILE",
      description = {
        "Backing file: what the new image has not written itself is read from it. A relative name "
            + "starts at the new image's directory."
      })
  private @Nullable String backingFile;

  @Option(
      names = {"-F", "--backing-format"},
      paramLabel = "FORMAT",
      description = "Format of the backing file, qcow2 or raw; required with one.")
  private @Nullable String backingFormat;

  @Option(
      names = "--cluster-size",
      paramLabel = "SIZE",
      description = "Unit of allocation, a power of two from 512 to 2M bytes. Default: 64k.")
  private @Nullable String clusterSize;

  @Option(
      names = "--compat",
      paramLabel = "VERSION",
      description = "1.1 (qcow2 version 3) or 0.10 (version 2, for old readers). Default: 1.1.")
  private @Nullable String compat;

  @Option(
      names = "--refcount-bits",
      paramLabel = "N",
      description = "Bits of a reference count, a power of two from 1 to 64. Default: 16.")
  private @Nullable String refcountBits;

  @Option(
      names = "--lazy-refcounts",
      paramLabel = "on|off",
      description = {
        "Whether reference counts may be written late and rebuilt after a crash. Default: off."
      })
  private @Nullable String lazyRefcounts;

  @Option(
      names = "--extended-l2",
      paramLabel = "on|off",
      description = {
        "Whether clusters have 32 subclusters, each allocated by itself: a small first write to an "
            + "overlay then copies a 32nd of a cluster at most. Clusters of 16k at least. Default: "
            + "off."
      })
  private @Nullable String extendedL2;

  @Option(
      names = "--compression-type",
      paramLabel = "zlib|zstd",
      description = {
        "How clusters are compressed that are written compressed; guests write plain ones. zstd is "
            + "faster, zlib is known to every reader. Default: zlib."
      })
  private @Nullable String compressionType;

  @Option(
      names = "--preallocation",
      paramLabel = "off|metadata|falloc|full",
      description = {
        "How much of the disk's space is taken now: off, none; metadata, the tables (qcow2); "
            + "falloc, the tables, and the host sets space aside for the data; full, the tables, "
            + "and the data is written as zeroes. Default: off."
      })
  private @Nullable String preallocation;

  @Option(
      names = {"-u", "--unsafe"},
      description = {
        "Name the backing file without a look at it; it need not be there yet. Needs a SIZE."
      })
  private boolean unsafe;

  @Option(
      names = "--json",
      description = "Print a JSON object that says what was made, its fields named as by info.")
  private boolean json;

  @Option(
      names = "--data-file",
      paramLabel = "FILE",
      description = {
        "Keep the guest's data in this file, which is made too; the image has the tables. A "
            + "relative name starts at the image's directory."
      })
  private @Nullable String dataFile;

  @Option(
      names = "--data-file-raw",
      paramLabel = "on|off",
      description = {
        "Whether the data file is, by itself, always the disk's raw image; implies "
            + "preallocation=metadata. Default: off."
      })
  private @Nullable String dataFileRaw;

  @Option(
      names = "--encrypt",
      paramLabel = "luks",
      description = {
        "Encrypt the guest's data with AES-256; the image opens with the passphrase that is given."
      })
  private @Nullable String encrypt;

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  @Option(
      names = {"-q", "--quiet"},
      description = "Say nothing when all is well.")
  private boolean quiet;

  CreateCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    CreateOptions options =
        settings().toOptions(format, size == null ? null : size.bytes(), passphrase.read());
    if (unsafe && options.virtualBytes() == null) {
      throw new UsageException("with -u nobody looks at the backing file's size: give a SIZE");
    }
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      if (unsafe) {
        DiskImages.createUnsafe(path, options, progress);
      } else {
        DiskImages.create(path, options, progress);
      }
    }
    if (json) {
      terminal.out().println(InfoAnswer.json(made()));
    } else if (!quiet) {
      terminal.out().println(answer(options));
    }
    return ExitCode.OK;
  }

  private ImageReport made() throws IOException {
    return DiskImages.inspect(path, OpenOptions.DEFAULT.withFormat(format).withReadOnly(true));
  }

  private CreateSettings settings() {
    CreateSettings settings = new CreateSettings();
    properties.forEach(settings::addList);
    settings.add("backing_file", backingFile);
    settings.add("backing_fmt", backingFormat);
    settings.add("cluster_size", clusterSize);
    settings.add("compat", compat);
    settings.add("refcount_bits", refcountBits);
    settings.add("lazy_refcounts", lazyRefcounts);
    settings.add("extended_l2", extendedL2);
    settings.add("compression_type", compressionType);
    settings.add("preallocation", preallocation);
    settings.add("data_file", dataFile);
    settings.add("data_file_raw", dataFileRaw);
    settings.add("encrypt.format", encrypt);
    return settings;
  }

  private String answer(CreateOptions options) {
    Long bytes = options.virtualBytes();
    return Printable.text(
        "created %s (%s, %s)"
            .formatted(
                path,
                bytes == null ? "the size of " + options.backingFile() : Sizes.text(bytes),
                format));
  }
}
