package io.qnbd.server;

import io.qnbd.image.Passphrase;
import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.config.Choice;
import io.qnbd.server.config.ConfigFile;
import io.qnbd.server.config.ExportPlan;
import io.qnbd.server.config.ServerConfig;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import io.qnbd.server.tls.TlsFiles;
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
    addMethodSubcommands = false,
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
      "0:stopped by a signal; everything written is in the images",
      "1:could not start, or an image could not be closed properly; standard error says why",
      "64:the command line makes no sense",
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
      "  qnbd serve --control /run/qnbd.ctl disk.qcow2    then: qnbd ctl /run/qnbd.ctl",
      "  qnbd serve --config /etc/qnbd.toml",
      "",
      "Without TLS, who can connect can read and write, and who can listen can read",
      "along: listen beyond this machine in trusted networks only, or with --tls."
    })
final class ServeCommand implements Callable<Integer> {
  /** More threads than this only wait for each other; each costs its stack. */
  private static final int WORKERS_MAX = 1024;

  private static final int CONNECTIONS_MAX_MAX = 1 << 20;

  private final Terminal terminal;

  @Parameters(
      arity = "0..*",
      paramLabel = "[NAME=]PATH",
      description = {
        "An image and the name to export it by; without a name, the file's own (disk.qcow2). A "
            + "single image is also the default export, which clients get that name none; among "
            + "several, =PATH makes the default one. A file name with an equals sign is written "
            + "with its directory: ./a=b."
      })
  private List<ExportArgument> exports = new ArrayList<>();

  @Option(
      names = {"-c", "--config"},
      paramLabel = "FILE",
      description = {
        "TOML file with the server's settings and exports; docs/configuration.md explains it. Its "
            + "exports come after those of the arguments, to which alone the options about exports "
            + "apply. --listen and --unix replace all addresses of the file; --control, --workers, "
            + "--max-connections and the options about TLS replace what it says of the same. SIGHUP"
            + " and 'qnbd ctl SOCKET reload' read it again."
      })
  private @Nullable Path config;

  @Mixin private ExportOptions exportOptions = new ExportOptions();

  @Option(
      names = "--passphrase-fd",
      paramLabel = "N",
      description = {
        "Take the passphrase of encrypted images on this command line from this open file "
            + "descriptor, such as a pipe; it is read once, at the start."
      })
  private @Nullable Integer passphraseFd;

  @Mixin private TlsOptions tlsOptions = new TlsOptions();

  @Option(
      names = "--listen",
      paramLabel = "HOST:PORT",
      description = {
        "TCP address to listen on; may be repeated. Port 0 lets the system choose, an IPv6 address"
            + " goes in brackets: [::1]:10809. Default: none with --unix, else QNBD_LISTEN in the"
            + " environment, else 127.0.0.1:10809."
      })
  private List<ListenAddress.Tcp> listen = new ArrayList<>();

  @Option(
      names = "--unix",
      paramLabel = "PATH",
      description = "Unix socket to listen on; may be repeated.")
  private List<Path> unix = new ArrayList<>();

  @Option(
      names = "--workers",
      paramLabel = "N",
      description = "Threads that work on requests. Default: chosen by the number of processors.")
  private @Nullable Integer workers;

  @Option(
      names = "--fast-path",
      paramLabel = "on|off",
      description = {
        "Whether small requests that need not wait for the disk are done by the thread that "
            + "receives them, which then looks out for the next ones for some microseconds. Off "
            + "hands each to a worker: slower, for comparison. Default: on."
      })
  private @Nullable String fastPath;

  @Option(
      names = "--max-connections",
      paramLabel = "N",
      description = "Connections to the server at a time. Default: 4096.")
  private @Nullable Integer connectionsMax;

  @Option(
      names = "--control",
      paramLabel = "PATH",
      description = {
        "Unix socket for 'qnbd ctl': exports, clients, sizes, snapshots and counters while the "
            + "server runs. Only its owner can use it."
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
    if (tlsOptions.generates()) {
      tlsOptions.generate(terminal, listen);
      return ExitCode.OK;
    }
    Lifecycle lifecycle = new Lifecycle(lifecycleOptions);
    ServePlan plan = plan(lifecycle);
    Serving serving = new Serving(plan, terminal);
    Thread hook = new Thread(() -> stopAndHalt(serving, lifecycle), "stop");
    Runtime.getRuntime().addShutdownHook(hook);
    UserSignal.onEach("USR1", () -> printStatistics(serving));
    if (config != null) {
      UserSignal.onEach("HUP", () -> reload(serving, lifecycle));
    }
    try {
      lifecycle.begin();
      String line = serving.start();
      lifecycle.ready(
          line,
          serving.addresses().getFirst(),
          serving.preferredExport(),
          switch (plan.tls()) {
            case OFF -> 0;
            case OPTIONAL -> 1;
            case REQUIRED -> 2;
          });
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
    if (exports.isEmpty() && config == null) {
      throw new UsageException("nothing to serve: name an image, or a file with --config");
    }
    requireDistinctNames();
    Passphrase passphrase =
        passphraseFd == null ? null : PassphraseOptions.readDescriptor(passphraseFd);
    List<ExportPlan> plans =
        exports.stream()
            .map(exportOptions::plan)
            .map(plan -> plan.withPassphrase(passphrase))
            .toList();
    ServerConfig file = config == null ? null : ConfigFile.read(config);
    ServerLimits limits = file == null ? ServerLimits.DEFAULT : file.limits();
    if (workers != null) {
      requireRange("--workers", workers, 1, WORKERS_MAX);
      limits = limits.withWorkerThreads(workers);
    }
    if (connectionsMax != null) {
      requireRange("--max-connections", connectionsMax, 1, CONNECTIONS_MAX_MAX);
      limits = limits.withConnectionsMax(connectionsMax);
    }
    if (fastPath != null) {
      limits = limits.withFastPath(onOff("--fast-path", fastPath));
    }
    TlsFiles tlsFiles = tlsOptions.files();
    TlsMode tls = tlsOptions.mode();
    if (file != null && tls == TlsMode.OFF) {
      tls = file.tls();
      tlsFiles = file.tlsFiles();
    }
    return new ServePlan(
        plans,
        lifecycle.addresses(listen, unix, file == null ? List.of() : file.addresses()),
        control == null && file != null ? file.control() : control,
        limits,
        tls,
        tlsFiles,
        file);
  }

  /** Not a boolean option, which picocli would take for a flag. */
  private static boolean onOff(String option, String value) {
    try {
      return Choice.onOff(value);
    } catch (IllegalArgumentException e) {
      throw new UsageException(option + ": " + e.getMessage());
    }
  }

  private static void requireRange(String option, long value, long min, long max) {
    if (value < min || value > max) {
      throw new UsageException("%s is %d, expected %d to %d".formatted(option, value, min, max));
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

  private void reload(Serving serving, Lifecycle lifecycle) {
    lifecycle.serviceManager().reloading();
    try {
      serving.reload().lines().forEach(line -> print("qnbd: " + line));
    } catch (IOException | RuntimeException e) {
      print("qnbd: not reloaded, nothing is changed: " + Failures.sentence(e));
    }
    lifecycle.serviceManager().ready("reloaded");
  }

  private void print(String line) {
    terminal.err().println(Printable.text(line));
    terminal.err().flush();
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
