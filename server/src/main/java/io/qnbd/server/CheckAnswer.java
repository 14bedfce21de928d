package io.qnbd.server;

import io.qnbd.image.CheckReport;
import java.nio.file.Path;
import java.util.Locale;

/** What {@code qnbd check} prints, and its exit code. */
final class CheckAnswer {
  private CheckAnswer() {}

  static int exitCode(CheckReport report) {
    if (report.corruptions() > 0) {
      return ExitCode.CORRUPT;
    }
    return report.leaks() > 0 ? ExitCode.LEAKS : ExitCode.OK;
  }

  static String text(Path path, CheckReport report) {
    StringBuilder text = new StringBuilder();
    for (String finding : report.findings()) {
      text.append(Printable.text(finding)).append(System.lineSeparator());
    }
    long untold = report.corruptions() + report.leaks() - report.findings().size();
    if (!report.findings().isEmpty() && untold > 0) {
      text.append("and %d more%n".formatted(untold));
    }
    text.append(Printable.text(path.toString())).append(": ").append(verdict(report));
    text.append(
        "%n%d of %d clusters allocated%s%s; the image ends at byte %d"
            .formatted(
                report.allocatedClusters(),
                report.totalClusters(),
                percent(report),
                report.compressedClusters() == 0
                    ? ""
                    : ", " + report.compressedClusters() + " of them compressed",
                report.imageEndOffset()));
    return text.toString();
  }

  private static String verdict(CheckReport report) {
    if (report.clean()) {
      return "no errors found";
    }
    String leaks = "%d leaked cluster%s".formatted(report.leaks(), report.leaks() == 1 ? "" : "s");
    if (report.corruptions() == 0) {
      return leaks + ": wasted space, no danger to data ('qemu-img check -r leaks' gives it back)";
    }
    return "%d error%s that put data in danger, %s; copy what can still be read before you repair it"
        .formatted(report.corruptions(), report.corruptions() == 1 ? "" : "s", leaks);
  }

  private static String percent(CheckReport report) {
    return report.totalClusters() == 0
        ? ""
        : String.format(
            Locale.ROOT, " (%.2f%%)", 100.0 * report.allocatedClusters() / report.totalClusters());
  }

  static String json(Path path, CheckReport report) {
    return Json.object(json -> {
      json.writeStringProperty("filename", path.toString());
      json.writeStringProperty("format", "qcow2");
      json.writeNumberProperty("check-errors", 0);
      json.writeNumberProperty("corruptions", report.corruptions());
      json.writeNumberProperty("leaks", report.leaks());
      json.writeNumberProperty("image-end-offset", report.imageEndOffset());
      json.writeNumberProperty("total-clusters", report.totalClusters());
      json.writeNumberProperty("allocated-clusters", report.allocatedClusters());
      json.writeNumberProperty("compressed-clusters", report.compressedClusters());
      json.writeArrayPropertyStart("findings");
      report.findings().forEach(json::writeString);
      json.writeEndArray();
    });
  }
}
