package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.server.transfer.DiskCopy;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd convert}. */
@Command(
    name = "convert",
    header = "Copy a disk into an image of another format, or to or from an NBD server.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Copies the disk in SOURCE, with all that its backing files hold, into TARGET. Either may be "
          + "a qcow2 or raw file or the URI of an NBD export (nbd://HOST/EXPORT, "
          + "nbd+unix:///EXPORT?socket=PATH). Zeroes are left out; a new file has its name only "
          + "when it is complete."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failed; standard error says why, and no file named TARGET was made",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd convert disk.raw disk.qcow2",
      "  qnbd convert -c -O qcow2 disk.qcow2 small.qcow2    compressed",
      "  qnbd convert --bitmaps disk.qcow2 moved.qcow2      with its dirty bitmaps",
      "  qnbd convert -l monday disk.qcow2 monday.raw       an internal snapshot",
      "  qnbd convert nbd://backup/root root.qcow2          out of an NBD server",
      "  qnbd convert disk.qcow2 nbd://127.0.0.1/root       into one"
    })
final class ConvertCommand implements Callable<Integer> {
  private static final int THREADS_DEFAULT = 4;
  private static final int THREADS_MAX = 64;

  /** More do not go faster on the machines that we have measured. */
  private static final int CONNECTIONS_MAX = 4;

  private static final int SPARSE_BYTES_DEFAULT = 4096;
  private static final int SPARSE_BYTES_MAX = 2 << 20;

  private final Terminal terminal;

  @Parameters(index = "0", paramLabel = "SOURCE", description = "The image or URI to read.")
  private String source = "";

  @Parameters(index = "1", paramLabel = "TARGET", description = "The file to make, or a URI.")
  private String target = "";

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "Read SOURCE as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat sourceFormat;

  @Option(
      names = {"-O", "--target-format"},
      paramLabel = "FORMAT",
      description = {
        "qcow2 or raw. Default: what TARGET's name says, .qcow2, .raw or .img; raw for a URI."
      })
  private @Nullable ImageFormat targetFormat;

  @Option(
      names = {"-o", "--options"},
      paramLabel = "NAME=VALUE[,...]",
      description = "Properties of the new image, as for 'qnbd create'. May be repeated.")
  private List<String> properties = new ArrayList<>();

  @Option(
      names = {"-c", "--compress"},
      description = "Compress the clusters of a qcow2 TARGET.")
  private boolean compress;

  @Option(
      names = "--compression-type",
      paramLabel = "TYPE",
      description = "How the new image's clusters are compressed: zlib (default) or zstd.")
  private @Nullable String compressionType;

  @Option(
      names = {"-S", "--sparse-size"},
      paramLabel = "SIZE",
      description = {
        "The fewest zeroes in a row that are left out, a power of two from 512 to 2M; 0 writes all "
            + "zeroes and allocates the whole disk. Default: 4k."
      })
  private ByteCount sparse = new ByteCount(SPARSE_BYTES_DEFAULT);

  @Option(
      names = {"-l", "--snapshot"},
      paramLabel = "SNAPSHOT",
      description = "Copy this internal snapshot, by name or id, instead of the disk.")
  private @Nullable String snapshot;

  @Option(
      names = {"-B", "--backing"},
      paramLabel = "FILE",
      description = {
        "Make TARGET an overlay of FILE: only what SOURCE itself holds is copied, and nothing of "
            + "SOURCE's backing file, whose contents FILE must have."
      })
  private @Nullable String backingFile;

  @Option(
      names = {"-F", "--backing-format"},
      paramLabel = "FORMAT",
      description = "Format of FILE, qcow2 or raw; required with -B.")
  private @Nullable String backingFormat;

  @Option(
      names = {"-n", "--no-create"},
      description = "Write into TARGET, which is there and large enough, and keep its properties.")
  private boolean existing;

  @Option(
      names = "--bitmaps",
      description = {
        "Copy the persistent dirty bitmaps too, from qcow2 to qcow2. One that records goes on doing"
            + " so in TARGET."
      })
  private boolean bitmaps;

  @Option(
      names = "--skip-broken-bitmaps",
      description = {
        "Leave out bitmaps that can't be believed, with a warning, instead of failing. With"
            + " --bitmaps."
      })
  private boolean skipBroken;

  @Option(names = "--force", description = "Replace a file that has TARGET's name.")
  private boolean force;

  @Option(
      names = {"-m", "--parallel"},
      paramLabel = "N",
      description = "Pieces that are on their way at a time, 1 to 64. Default: ${DEFAULT-VALUE}.")
  private int threads = THREADS_DEFAULT;

  @Option(
      names = {"-t", "--cache"},
      paramLabel = "MODE",
      description = {
        "How TARGET is written. Default: unsafe, as qemu-img does: it is complete at the end, but"
            + " durable only when the host gets round to it. With writeback it is durable at the"
            + " end."
      })
  private CacheMode cache = CacheMode.UNSAFE;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = "Which backing files SOURCE may name: none, same-directory (default) or any.")
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(
      names = {"-U", "--force-share"},
      description = {
        "Read SOURCE also when another process has it open for writing; the copy may then be "
            + "inconsistent."
      })
  private boolean forceShare;

  @Mixin private PassphraseOptions.OfSource sourcePassphrase = new PassphraseOptions.OfSource();

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  ConvertCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    ImageFormat format = format();
    check(format);
    OpenOptions reading =
        OpenOptions.DEFAULT
            .withFormat(sourceFormat)
            .withReadOnly(true)
            .withBackingPolicy(backingPolicy)
            .withForceShare(forceShare)
            .withSnapshot(plainSnapshot())
            .withPassphrase(sourcePassphrase.read(passphrase));
    try (DiskImage from = Disks.open(source, reading, connections())) {
      if (existing || Disks.remote(target)) {
        refuseItself(reading);
        writeInto(from, format);
      } else {
        create(from, format, reading);
      }
    }
    return ExitCode.OK;
  }

  /** qemu-img takes {@code snapshot.name=NAME} too. */
  private @Nullable String plainSnapshot() {
    return snapshot == null ? null : snapshot.replaceFirst("^snapshot\\.(name|id)=", "");
  }

  private int connections() {
    return Math.min(threads, CONNECTIONS_MAX);
  }

  private ImageFormat format() {
    if (targetFormat != null) {
      return targetFormat;
    }
    String name = target.toLowerCase(Locale.ROOT);
    if (Disks.remote(target) || name.endsWith(".raw") || name.endsWith(".img")) {
      return ImageFormat.RAW;
    }
    if (name.endsWith(".qcow2")) {
      return ImageFormat.QCOW2;
    }
    throw new UsageException(
        "the format of " + target + " does not follow from its name: say -O qcow2 or -O raw");
  }

  private void check(ImageFormat format) {
    if (format == ImageFormat.QCOW2 && Disks.remote(target)) {
      throw new UsageException("an NBD export is written as a raw disk: leave -O out");
    }
    if (compress && format == ImageFormat.RAW) {
      throw new UsageException("only a qcow2 image has compressed clusters: add -O qcow2");
    }
    if (bitmaps && format == ImageFormat.RAW) {
      throw new UsageException("only a qcow2 image has persistent bitmaps: add -O qcow2");
    }
    if (bitmaps && snapshot != null) {
      throw new UsageException("bitmaps describe the disk and no snapshot: leave --bitmaps out");
    }
    if (skipBroken && !bitmaps) {
      throw new UsageException("--skip-broken-bitmaps makes sense with --bitmaps only");
    }
    if (threads < 1 || threads > THREADS_MAX) {
      throw new UsageException(
          "--parallel is %d, expected 1 to %d".formatted(threads, THREADS_MAX));
    }
    long bytes = sparse.bytes();
    if (bytes != 0 && (Long.bitCount(bytes) != 1 || bytes < 512 || bytes > SPARSE_BYTES_MAX)) {
      throw new UsageException(
          "--sparse-size is %d, expected 0 or a power of two from 512 to 2M".formatted(bytes));
    }
    boolean made = !properties.isEmpty() || backingFile != null || compressionType != null;
    if (made && (existing || Disks.remote(target))) {
      throw new UsageException(
          "-o, -B and --compression-type are for a TARGET that is made, and it is there already");
    }
  }

  private void writeInto(DiskImage from, ImageFormat format) throws IOException {
    @Nullable Passphrase opening = passphrase.read();
    OpenOptions writing =
        OpenOptions.DEFAULT
            .withFormat(Disks.remote(target) ? null : format)
            .withCacheMode(cache)
            .withBackingPolicy(backingPolicy)
            .withPassphrase(opening);
    try (DiskImage to = Disks.open(target, writing, connections())) {
      if (to.virtualBytes() < from.virtualBytes()) {
        throw new IOException(
            "%s has %d bytes, too few for the %d of %s"
                .formatted(target, to.virtualBytes(), from.virtualBytes(), source));
      }
      copy(from, to, false, opening != null);
      to.flush();
    }
  }

  private void create(DiskImage from, ImageFormat format, OpenOptions reading) throws IOException {
    Path path = Disks.path(target);
    if (force && Files.exists(path)) {
      refuseItself(reading);
      // Whoever has it open for writing would go on writing into a file without a name.
      DiskImages.inspect(path, OpenOptions.DEFAULT.withReadOnly(true).withFormat(ImageFormat.RAW));
    }
    CreateSettings settings = new CreateSettings();
    properties.forEach(settings::addList);
    settings.add("backing_file", backingFile);
    settings.add("backing_fmt", backingFormat);
    settings.add("compression_type", compressionType);
    @Nullable Passphrase opening = passphrase.read();
    CreateOptions options =
        settings.toOptions(
            format, sizeFor(format, from.virtualBytes()), settings.plainOverlay() ? null : opening);
    boolean overlay = options.backingFile() != null;
    try (PartialFile partial = new PartialFile(path, force)) {
      DiskImages.create(partial.path(), options);
      OpenOptions writing =
          OpenOptions.DEFAULT
              .withFormat(format)
              .withCacheMode(cache)
              .withBackingPolicy(BackingPolicy.ANY)
              .withPassphrase(opening);
      try (DiskImage to = DiskImages.open(partial.path(), writing)) {
        copy(from, to, !overlay, opening != null);
        to.flush();
      }
      partial.complete();
    }
  }

  /** qcow2's sizes are whole sectors. */
  private static long sizeFor(ImageFormat format, long bytes) {
    return format == ImageFormat.RAW ? bytes : (bytes + 511) & -512;
  }

  private void copy(DiskImage from, DiskImage to, boolean targetIsZero, boolean encrypted)
      throws IOException {
    int compressedBytes = compress ? to.clusterBytes() : 0;
    DiskCopy.Settings settings =
        new DiskCopy.Settings(
            threads,
            compressedBytes,
            (int) sparse.bytes(),
            targetIsZero,
            backingFile != null,
            !encrypted && !cache.direct() && !Disks.remote(target));
    try (BitmapCopy copied = new BitmapCopy(terminal, source, target, skipBroken);
        ProgressLine progress = new ProgressLine(terminal, target)) {
      if (bitmaps) {
        copied.begin(from, to);
      }
      new DiskCopy(from, to, settings).run(progress);
      copied.finish(from);
    }
  }

  /** A disk that is written over while it is read is lost. */
  private void refuseItself(OpenOptions reading) throws IOException {
    if (Disks.remote(source) || Disks.remote(target)) {
      if (source.equals(target)) {
        throw new IOException(target + ": is SOURCE and TARGET at once");
      }
      return;
    }
    Path path = Disks.path(target);
    if (!Files.exists(path)) {
      return;
    }
    for (ImageReport each : DiskImages.inspectChain(Disks.path(source), reading)) {
      if (Files.isSameFile(each.path(), path)) {
        throw new IOException(
            "%s is SOURCE, or below it, and TARGET at once: its data would be lost"
                .formatted(target));
      }
    }
  }
}
