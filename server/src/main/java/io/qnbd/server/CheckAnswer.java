package io.qnbd.server;

import io.qnbd.image.CheckReport;
import io.qnbd.image.RepairReport;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import tools.jackson.core.JsonGenerator;

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

  /** What was found, what was done about it, and what is left. */
  static String text(Path path, RepairReport report) {
    StringBuilder text = new StringBuilder();
    for (String finding : report.before().findings()) {
      text.append(Printable.text(finding)).append(System.lineSeparator());
    }
    for (String repair : report.repairs()) {
      text.append(Printable.text("repair: " + repair)).append(System.lineSeparator());
    }
    if (!report.before().clean()) {
      text.append(
          "repaired %d of %d error%s and %d of %d leaked cluster%s; checked again:%n"
              .formatted(
                  report.corruptionsFixed(),
                  report.before().corruptions(),
                  report.before().corruptions() == 1 ? "" : "s",
                  report.leaksFixed(),
                  report.before().leaks(),
                  report.before().leaks() == 1 ? "" : "s"));
    }
    return text.append(text(path, report.after())).toString();
  }

  private static String verdict(CheckReport report) {
    if (report.clean()) {
      return "no errors found";
    }
    String leaks = "%d leaked cluster%s".formatted(report.leaks(), report.leaks() == 1 ? "" : "s");
    if (report.corruptions() == 0) {
      return leaks
          + ": wasted space, no danger to data ('qnbd check --repair leaks' gives it back)";
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
    return Json.object(json -> write(json, path, report));
  }

  /** As qemu-img has it: what is left, and how much was repaired. */
  static String json(Path path, RepairReport report) {
    return Json.object(json -> {
      write(json, path, report.after());
      json.writeNumberProperty("corruptions-fixed", report.corruptionsFixed());
      json.writeNumberProperty("leaks-fixed", report.leaksFixed());
      writeTexts(json, "findings-before", report.before().findings());
      writeTexts(json, "repairs", report.repairs());
    });
  }

  private static void write(JsonGenerator json, Path path, CheckReport report) {
    json.writeStringProperty("filename", path.toString());
    json.writeStringProperty("format", "qcow2");
    json.writeNumberProperty("check-errors", 0);
    json.writeNumberProperty("corruptions", report.corruptions());
    json.writeNumberProperty("leaks", report.leaks());
    json.writeNumberProperty("image-end-offset", report.imageEndOffset());
    json.writeNumberProperty("total-clusters", report.totalClusters());
    json.writeNumberProperty("allocated-clusters", report.allocatedClusters());
    json.writeNumberProperty("compressed-clusters", report.compressedClusters());
    writeTexts(json, "findings", report.findings());
  }

  private static void writeTexts(JsonGenerator json, String name, List<String> texts) {
    json.writeArrayPropertyStart(name);
    texts.forEach(json::writeString);
    json.writeEndArray();
  }
}
