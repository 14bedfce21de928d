package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.transfer.DiskLoad;
import java.io.IOException;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd bench}. */
@Command(
    name = "bench",
    header = "See how fast an image or an export is.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Sends equal requests to DISK, some at a time, and says how long they took. DISK is a qcow2 "
          + "or raw file, or the URI of an NBD export. With --write what DISK holds there is lost."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:all requests were answered",
      "1:one failed, or the disk could not be opened; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd bench disk.qcow2",
      "  qnbd bench --random --depth 32 --seconds 10 nbd://127.0.0.1",
      "  qnbd bench --write --buffer-size 64K --flush-interval 16 scratch.qcow2"
    })
final class BenchCommand implements Callable<Integer> {
  private static final int DEPTH_MAX = 1024;
  private static final int BYTES_MAX = 32 << 20;
  private static final long BUFFERS_BYTES_MAX = 1 << 30;
  private static final int PATTERN_MAX = 255;

  /** An export is asked over so many connections at most. */
  private static final int CONNECTIONS = 4;

  private final Terminal terminal;

  @Parameters(index = "0", paramLabel = "DISK", description = "The image or URI.")
  private String disk = "";

  @Option(
      names = {"-c", "--count"},
      paramLabel = "N",
      description = "Requests in all. Default: 75000, or with --seconds as many as fit in.")
  private @Nullable Long count;

  @Option(
      names = "--seconds",
      paramLabel = "N",
      description = "Begin no further request after so long.")
  private @Nullable Integer seconds;

  @Option(
      names = {"-d", "--depth"},
      paramLabel = "N",
      description = "Requests at a time, up to " + DEPTH_MAX + ". Default: 64.")
  private int depth = 64;

  @Option(
      names = {"-s", "--buffer-size"},
      paramLabel = "SIZE",
      description = "Of each request, up to 32M. Default: 4K.")
  private ByteCount bufferSize = new ByteCount(4096);

  @Option(
      names = {"-o", "--offset"},
      paramLabel = "SIZE",
      description = "Where the first request begins. Default: 0.")
  private ByteCount offset = new ByteCount(0);

  @Option(
      names = {"-S", "--step-size"},
      paramLabel = "SIZE",
      description = "From where one request begins to where the next does. Default: their size.")
  private @Nullable ByteCount stepSize;

  @Option(names = "--random", description = "Take these places by chance, not in their order.")
  private boolean random;

  @Option(
      names = {"-w", "--write"},
      description = "Write instead of reading.")
  private boolean write;

  @Option(
      names = "--pattern",
      paramLabel = "BYTE",
      description = "What is written, 0 to 255. Default: 0.")
  private int pattern;

  @Option(
      names = "--flush-interval",
      paramLabel = "N",
      description = "Flush after every N writes. Default: only at the end.")
  private @Nullable Long flushInterval;

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "Take DISK as qcow2 or raw instead of looking at its first bytes.")
  private @Nullable ImageFormat format;

  @Option(
      names = {"-t", "--cache"},
      paramLabel = "MODE",
      description = "How a file is written, as for 'qnbd serve'. Default: writeback.")
  private CacheMode cache = CacheMode.WRITEBACK;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = "Which backing files DISK may name: none, same-directory (default) or any.")
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Option(names = "--json", description = "Print a JSON object.")
  private boolean json;

  @Option(
      names = {"-q", "--quiet"},
      description = "Say nothing but errors.")
  private boolean quiet;

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  BenchCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    DiskLoad.Plan plan = plan();
    OpenOptions options =
        OpenOptions.DEFAULT
            .withFormat(format)
            .withReadOnly(!write)
            .withCacheMode(cache)
            .withBackingPolicy(backingPolicy)
            .withPassphrase(passphrase.read());
    try (DiskImage image = Disks.open(disk, options, CONNECTIONS)) {
      DiskLoad load = new DiskLoad(image, plan);
      if (!quiet && !json) {
        announce(plan);
      }
      DiskLoad.Result result = load.run();
      long flushNanos = 0;
      if (write) {
        long start = System.nanoTime();
        image.flush();
        flushNanos = System.nanoTime() - start;
      }
      if (!quiet) {
        tell(plan, result, flushNanos);
      }
    }
    return ExitCode.OK;
  }

  private DiskLoad.Plan plan() {
    within("--depth", depth, 1, DEPTH_MAX);
    within("--buffer-size", bufferSize.bytes(), 1, BYTES_MAX);
    if (depth * bufferSize.bytes() > BUFFERS_BYTES_MAX) {
      throw new UsageException("--depth times --buffer-size must be 1G at most: it is in memory");
    }
    within("--pattern", pattern, 0, PATTERN_MAX);
    long step = stepSize == null ? bufferSize.bytes() : stepSize.bytes();
    within("--step-size", step, 1, Long.MAX_VALUE);
    if (flushInterval != null && !write) {
      throw new UsageException("--flush-interval goes with --write: reads need no flush");
    }
    long requests = count != null ? count : seconds != null ? Long.MAX_VALUE : 75_000;
    within("--count", requests, 1, Long.MAX_VALUE);
    int limit = seconds == null ? Integer.MAX_VALUE : seconds;
    within("--seconds", limit, 1, Integer.MAX_VALUE);
    long flushes = flushInterval == null ? 0 : flushInterval;
    within("--flush-interval", flushes, flushInterval == null ? 0 : 1, Long.MAX_VALUE);
    return new DiskLoad.Plan(
        requests,
        TimeUnit.SECONDS.toNanos(limit),
        depth,
        (int) bufferSize.bytes(),
        offset.bytes(),
        step,
        random,
        write,
        (byte) pattern,
        flushes);
  }

  private static void within(String option, long value, long min, long max) {
    if (value < min || value > max) {
      throw new UsageException(
          max == Long.MAX_VALUE
              ? "%s must be at least %d".formatted(option, min)
              : "%s must be from %d to %d".formatted(option, min, max));
    }
  }

  private void announce(DiskLoad.Plan plan) {
    terminal
        .out()
        .println(
            "%s of %s, %d at a time, %s from offset %d in steps of %s"
                .formatted(
                    write ? "writes" : "reads",
                    Sizes.text(plan.bytes()),
                    plan.depth(),
                    random ? "at random" : "in order",
                    plan.offset(),
                    Sizes.text(plan.step())));
  }

  private void tell(DiskLoad.Plan plan, DiskLoad.Result result, long flushNanos) {
    double bytesPerSecond = result.perSecond() * plan.bytes();
    if (json) {
      terminal
          .out()
          .println(
              Json.object(out -> {
                out.writeNumberProperty("requests", result.requests());
                out.writeNumberProperty("seconds", seconds(result.nanos()));
                out.writeNumberProperty("requests-per-second", result.perSecond());
                out.writeNumberProperty("bytes-per-second", bytesPerSecond);
                out.writeNumberProperty("flush-seconds", seconds(flushNanos));
              }));
      return;
    }
    terminal
        .out()
        .println(
            "%d requests in %.3f s: %.0f a second, %.1f MiB/s%s"
                .formatted(
                    result.requests(),
                    seconds(result.nanos()),
                    result.perSecond(),
                    bytesPerSecond / (1 << 20),
                    write ? "; flush: %.3f s".formatted(seconds(flushNanos)) : ""));
  }

  private static double seconds(long nanos) {
    return nanos / 1e9;
  }
}
