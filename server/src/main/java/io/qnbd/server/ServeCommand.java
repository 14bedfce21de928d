package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.server.config.TcpAddress;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd serve}. */
@Command(
    name = "serve",
    header = "Serve disk images over NBD.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Serves disk images over NBD until SIGTERM or SIGINT (control-C) arrives. Prints one line on "
          + "standard output when clients can connect. Then a Linux machine attaches the disk with "
          + "nbd-client, QEMU with file.driver=nbd, and libnbd's tools with the URI of the line."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:stopped by a signal or by --once; everything written is in the images",
      "1:could not start, or an image could not be closed properly; standard error says why",
      "64:the command line makes no sense",
      "0 to 255:with --run, the command's exit code, 128 and the number if a signal ended it",
      "130, 143:a second signal came before the images were closed. They stay consistent; what was "
          + "written since the last flush may be lost"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd serve --create 10G disk.qcow2",
      "  qnbd serve root=root.qcow2 data=data.qcow2 --listen 0.0.0.0:10809",
      "  qnbd serve --unix /run/qnbd.sock --read-only base.qcow2",
      "  qnbd serve --format raw disk.raw",
      "  qnbd serve --snapshot monday --listen 127.0.0.1:10810 disk.qcow2",
      "  qnbd serve --run 'qemu-img convert $nbd copy.raw' disk.qcow2",
      "  qnbd serve --control /run/qnbd.ctl disk.qcow2    then: qnbd ctl /run/qnbd.ctl",
      "",
      "The protocol has no passwords and this server no encryption yet: who can",
      "connect can read and write. Listen beyond this machine in trusted networks only."
    })
final class ServeCommand implements Callable<Integer> {
  private static final long L2_CACHE_BYTES_MIN = 64 << 10;

  /** A batch of a million decrements is 16 MiB of memory and leaks 64 GiB at worst. */
  private static final int REF_COUNT_MAX = 1 << 20;

  /** More threads than this only wait for each other; each costs its stack. */
  private static final int WORKERS_MAX = 1024;

  private final Terminal terminal;

  @Parameters(
      arity = "1..*",
      paramLabel = "[NAME=]PATH",
      description = {
        "An image and the name to export it by; without a name, the file's own (disk.qcow2). A "
            + "single image is also the default export, which clients get that name none; among "
            + "several, =PATH makes the default one. A file name with an equals sign is written "
            + "with its directory: ./a=b."
      })
  private List<ExportArgument> exports = new ArrayList<>();

  @Option(
      names = "--listen",
      paramLabel = "HOST:PORT",
      description = {
        "TCP address to listen on; may be repeated. Port 0 lets the system choose, an IPv6 address "
            + "goes in brackets: [::1]:10809; without a host, :10809, it is all of the machine's. "
            + "Default: 127.0.0.1:10809; none with --unix, --run or sockets from systemd."
      })
  private List<ListenAddress.Tcp> listen = new ArrayList<>();

  @Option(
      names = "--unix",
      paramLabel = "PATH",
      description = "Unix socket to listen on; may be repeated.")
  private List<Path> unix = new ArrayList<>();

  @Option(
      names = "--create",
      paramLabel = "SIZE",
      description = {
        "Make each image that is not there, with a disk of SIZE bytes (units K, M, G, T, P, E: "
            + "powers of 1024); qcow2 unless --format raw is given. A file that is there is never "
            + "touched."
      })
  private @Nullable ByteCount create;

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = {
        "What the images are: qcow2 or raw. Default: look at the file. A raw image is served "
            + "writable only if this says raw, because its guest could make it look like qcow2."
      })
  private @Nullable ImageFormat format;

  @Option(
      names = {"-r", "--read-only"},
      description = "Refuse writes.")
  private boolean readOnly;

  @Option(
      names = "--cache",
      paramLabel = "MODE",
      defaultValue = "writeback",
      description = {
        "When writes are durable. writeback: when the client flushes. writethrough: each before it "
            + "is acknowledged. none, directsync: the same two past the host's page cache "
            + "(O_DIRECT). unsafe: flushes are ignored, the image is lost if the host crashes. "
            + "Default: ${DEFAULT-VALUE}."
      })
  private CacheMode cacheMode = CacheMode.WRITEBACK;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      defaultValue = "same-directory",
      description = {
        "Which backing files an image may name. none: no image may have one. same-directory: those "
            + "in its own directory or below. any: every file. Default: ${DEFAULT-VALUE}."
      })
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(
      names = "--l2-cache",
      paramLabel = "SIZE",
      defaultValue = "32M",
      description = {
        "Memory for cached mapping tables, for each image, in bytes or with a unit; at least 64K. "
            + "32M map 256 GiB of a disk with 64 KiB clusters. Default: ${DEFAULT-VALUE}."
      })
  private ByteCount l2Cache = new ByteCount(OpenOptions.L2_CACHE_BYTES_DEFAULT);

  @Option(
      names = "--ref-batch",
      paramLabel = "N",
      defaultValue = "" + OpenOptions.REF_BATCH_DEFAULT,
      description = {
        "How many freed clusters are kept in memory before their reference counts are written; a "
            + "crash leaks them, wasting space. 0 keeps none. Default: ${DEFAULT-VALUE}."
      })
  private int refBatch = OpenOptions.REF_BATCH_DEFAULT;

  @Option(
      names = "--ref-reserve",
      paramLabel = "N",
      defaultValue = "" + OpenOptions.REF_RESERVE_DEFAULT,
      description = {
        "How many clusters are reserved ahead, at most, by one write of reference counts; a crash "
            + "leaks what is left. 0 reserves none ahead. Default: ${DEFAULT-VALUE}."
      })
  private int refReserve = OpenOptions.REF_RESERVE_DEFAULT;

  @Option(
      names = "--workers",
      paramLabel = "N",
      description = "Threads that work on requests. Default: chosen by the number of processors.")
  private @Nullable Integer workers;

  @Option(
      names = "--snapshot",
      paramLabel = "NAME",
      description = {
        "Serve the disk as it was when the internal snapshot NAME (or its id) was taken, read-only;"
            + " with several images, that snapshot of each."
      })
  private @Nullable String snapshot;

  @Option(
      names = "--control",
      paramLabel = "PATH",
      description = {
        "Unix socket for 'qnbd ctl': snapshots, exports and counters while the server runs. Only "
            + "its owner can use it."
      })
  private @Nullable Path control;

  @Mixin private LifecycleOptions lifecycleOptions = new LifecycleOptions();

  @Option(
      names = "--stats",
      description = {
        "Print the counters of each export to standard error at the end. SIGUSR1 prints them at any"
            + " time."
      })
  private boolean stats;

  ServeCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException, InterruptedException {
    Lifecycle lifecycle = new Lifecycle(lifecycleOptions);
    Serving serving = new Serving(plan(lifecycle), terminal);
    Thread hook = new Thread(() -> stopAndHalt(serving, lifecycle), "stop");
    Runtime.getRuntime().addShutdownHook(hook);
    UserSignal.onEach(() -> printStatistics(serving));
    try {
      lifecycle.begin();
      String line = serving.start();
      lifecycle.ready(line, serving.addresses().getFirst(), preferredExport(), 0);
      if (!lifecycle.runsCommand()) {
        terminal.out().println(line);
        terminal.out().flush();
      }
      serving.onIdle(lifecycle::idle);
      serving.awaitStopped();
      return ExitCode.OK;
    } catch (IOException | RuntimeException failed) {
      stop(serving, lifecycle);
      throw failed;
    } finally {
      removeUnlessRunning(hook);
    }
  }

  private ServePlan plan(Lifecycle lifecycle) throws IOException {
    requireRange("--l2-cache", l2Cache.bytes(), L2_CACHE_BYTES_MIN, Long.MAX_VALUE);
    requireRange("--ref-batch", refBatch, 0, REF_COUNT_MAX);
    requireRange("--ref-reserve", refReserve, 0, REF_COUNT_MAX);
    if (workers != null) {
      requireRange("--workers", workers, 1, WORKERS_MAX);
    }
    if (snapshot != null && create != null) {
      throw new UsageException("--snapshot and --create exclude each other");
    }
    if (snapshot != null && format == ImageFormat.RAW) {
      throw new UsageException("--snapshot needs qcow2: raw images have no snapshots");
    }
    requireDistinctNames();
    OpenOptions open =
        OpenOptions.DEFAULT
            .withFormat(format)
            .withReadOnly(readOnly)
            .withCacheMode(cacheMode)
            .withBackingPolicy(backingPolicy)
            .withL2CacheBytes(l2Cache.bytes())
            .withRefBatch(refBatch)
            .withRefReserve(refReserve)
            .withSnapshot(snapshot);
    ServerLimits limits = ServerLimits.DEFAULT;
    return new ServePlan(
        exports,
        lifecycle.addresses(listen, unix),
        open,
        create == null ? null : create.bytes(),
        control,
        workers == null ? limits : limits.withWorkerThreads(workers));
  }

  /** What a command connects to: the default export where there is one, else the first. */
  private String preferredExport() {
    boolean byDefault =
        exports.size() == 1 || exports.stream().anyMatch(export -> export.name().isEmpty());
    return byDefault ? "" : exports.getFirst().name();
  }

  private static void requireRange(String option, long value, long min, long max) {
    if (value < min || value > max) {
      throw new UsageException(
          max == Long.MAX_VALUE
              ? "%s is %d, expected at least %d".formatted(option, value, min)
              : "%s is %d, expected %d to %d".formatted(option, value, min, max));
    }
  }

  private void requireDistinctNames() {
    Set<String> names = new HashSet<>();
    for (ExportArgument export : exports) {
      if (!names.add(export.name())) {
        throw new UsageException(
            "two exports have the name '%s': give one another with NAME=%s"
                .formatted(export.name(), export.path()));
      }
    }
  }

  /**
   * The JVM would end with 128 plus the signal's number after its hooks; a stop that was asked for
   * and went well is no failure, hence the halt, after all is closed.
   */
  private void stopAndHalt(Serving serving, Lifecycle lifecycle) {
    Signals.endAtTheNext();
    int code = stop(serving, lifecycle);
    if (stats) {
      printStatistics(serving);
    }
    terminal.err().flush();
    Runtime.getRuntime().halt(code);
  }

  /** Stops what runs; returns the exit code of a server that was ready. */
  private int stop(Serving serving, Lifecycle lifecycle) {
    lifecycle.stopping();
    List<String> failures = serving.stop();
    int code = lifecycle.ended(failures);
    failures.forEach(failure -> terminal.err().println("qnbd: " + failure));
    return failures.isEmpty() ? code : ExitCode.FAILURE;
  }

  private void printStatistics(Serving serving) {
    serving.statistics().forEach(terminal.err()::println);
    terminal.err().flush();
  }

  private static void removeUnlessRunning(Thread hook) {
    try {
      Runtime.getRuntime().removeShutdownHook(hook);
    } catch (IllegalStateException _) {
      // The hook is running: it ends the process.
    }
  }
}
