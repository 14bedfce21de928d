package io.qnbd.server;

import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ResizeOptions;
import io.qnbd.server.config.Sizes;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code qnbd resize}. */
@Command(
    name = "resize",
    header = "Make an image's disk larger or smaller.",
    synopsisHeading = "%nUsage: ",
    description = {
      "Changes the size of the disk of an image that nobody has open. What is added reads as"
          + " zeroes. What lies behind the new end of a smaller disk is lost, and its space is"
          + " given back to the host. For an image that qnbd serves there is 'qnbd ctl SOCKET"
          + " resize'."
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
      "  qnbd resize disk.qcow2 20G",
      "  qnbd resize disk.qcow2 +5G",
      "  qnbd resize --preallocation falloc disk.qcow2 +5G",
      "  qnbd resize --shrink disk.qcow2 -- -5G"
    })
final class ResizeCommand implements Callable<Integer> {
  private final Terminal terminal;

  @Parameters(index = "0", paramLabel = "PATH", description = "The image.")
  private Path path = Path.of("");

  @Parameters(
      index = "1",
      paramLabel = "[+|-]SIZE",
      description = {
        "The new size in bytes, or with a unit K, M, G, T, P or E (powers of 1024); with a sign, "
            + "by how much it changes. Before a '-' stands '--'."
      })
  private String size = "";

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "qcow2 or raw; a raw image's format is never guessed.")
  private @Nullable ImageFormat format;

  @Option(names = "--shrink", description = "Allow the disk to become smaller and lose its end.")
  private boolean shrink;

  @Option(
      names = "--preallocation",
      paramLabel = "off|metadata|falloc|full",
      description = "How much of what is added is taken now, as for create. Default: off.")
  private Preallocation preallocation = Preallocation.OFF;

  @Mixin private ChangingOptions changing = new ChangingOptions();

  @Option(names = "--json", description = "Print a JSON object with the old and the new size.")
  private boolean json;

  ResizeCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Override
  public Integer call() throws IOException {
    parsedSize(); // a size that makes no sense is no matter of the image
    OpenOptions options = changing.open().withFormat(format);
    long old = DiskImages.inspect(path, options.withReadOnly(true)).virtualBytes();
    long bytes = newBytes(old);
    try (ProgressLine progress = new ProgressLine(terminal, path)) {
      DiskImages.resize(path, options, new ResizeOptions(bytes, shrink, preallocation), progress);
    }
    if (json) {
      terminal
          .out()
          .println(
              Json.object(fields -> {
                fields.writeStringProperty("filename", path.toString());
                fields.writeNumberProperty("old-size", old);
                fields.writeNumberProperty("virtual-size", bytes);
              }));
    } else if (!changing.quiet()) {
      terminal
          .out()
          .println(
              Printable.text(
                  "resized %s from %s to %s".formatted(path, Sizes.text(old), Sizes.text(bytes))));
    }
    return ExitCode.OK;
  }

  /** The size without its sign. */
  private long parsedSize() {
    boolean relative = size.startsWith("+") || size.startsWith("-");
    try {
      return Sizes.parse(relative ? size.substring(1) : size);
    } catch (IllegalArgumentException e) {
      throw new UsageException("the size: " + e.getMessage());
    }
  }

  private long newBytes(long old) {
    char sign = size.isEmpty() ? '=' : size.charAt(0);
    long bytes = parsedSize();
    if (sign == '-' && bytes > old) {
      throw new UsageException(
          "the disk has %s and can't lose %s".formatted(Sizes.text(old), Sizes.text(bytes)));
    }
    if (sign == '+' && bytes > Long.MAX_VALUE - old) {
      throw new UsageException("the disk would have more than 8 EiB");
    }
    return switch (sign) {
      case '+' -> old + bytes;
      case '-' -> old - bytes;
      default -> bytes;
    };
  }
}
