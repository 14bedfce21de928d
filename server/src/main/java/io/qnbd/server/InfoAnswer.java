package io.qnbd.server;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.ImageReport;
import io.qnbd.image.ImageReport.Bitmap;
import io.qnbd.image.ImageReport.Qcow2Details;
import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.SnapshotFields;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import tools.jackson.core.JsonGenerator;

/** What {@code qnbd info} prints. */
final class InfoAnswer {
  private InfoAnswer() {}

  static String text(ImageReport report) {
    StringBuilder text = new StringBuilder();
    text.append(row("image", Printable.text(report.path().toString())).stripLeading());
    Qcow2Details qcow2 = report.qcow2();
    text.append(
        row("format", report.format() + (qcow2 == null ? "" : compat(qcow2, " (compat %s)"))));
    text.append(row("virtual size", Sizes.textWithBytes(report.virtualBytes())));
    text.append(
        row(
            "on the host",
            "%s in a file of %s"
                .formatted(Sizes.text(report.diskBytes()), Sizes.text(report.fileBytes()))));
    if (qcow2 != null) {
      appendDetails(text, qcow2);
      appendSnapshots(text, qcow2.snapshots());
      appendBitmaps(text, qcow2.bitmaps());
    }
    return text.toString();
  }

  private static void appendDetails(StringBuilder text, Qcow2Details qcow2) {
    text.append(row("cluster size", Sizes.text(qcow2.clusterBytes())));
    text.append(
        row("refcounts", qcow2.refcountBits() + " bits" + (qcow2.lazyRefcounts() ? ", lazy" : "")));
    text.append(row("compression", qcow2.compression()));
    if (qcow2.extendedL2()) {
      text.append(row("L2 entries", "extended, with subclusters"));
    }
    if (encrypted(qcow2)) {
      text.append(row("encryption", qcow2.encryption()));
    }
    if (qcow2.backingFile() != null) {
      String format = qcow2.backingFormat() == null ? "not named" : qcow2.backingFormat();
      text.append(
          row(
              "backing file",
              Printable.text("%s (format %s)".formatted(qcow2.backingFile(), format))));
    }
    if (qcow2.dataFile() != null) {
      text.append(row("data file", Printable.text(qcow2.dataFile())));
    }
    text.append(row("state", state(qcow2)));
    String features =
        Stream.of(
                qcow2.incompatibleFeatures(), qcow2.compatibleFeatures(), qcow2.autoclearFeatures())
            .flatMap(List::stream)
            .collect(Collectors.joining(", "));
    if (!features.isEmpty()) {
      text.append(row("features", Printable.text(features)));
    }
  }

  private static String state(Qcow2Details qcow2) {
    if (qcow2.corrupt()) {
      return "marked as corrupt: it opens for reading only";
    }
    return qcow2.dirty() ? "dirty: open, or not closed properly" : "clean";
  }

  private static void appendSnapshots(StringBuilder text, List<Snapshot> snapshots) {
    if (snapshots.isEmpty()) {
      return;
    }
    text.append("%nsnapshots:".formatted());
    text.append(SnapshotAnswer.rows(snapshots, "  "));
  }

  private static void appendBitmaps(StringBuilder text, List<Bitmap> bitmaps) {
    if (bitmaps.isEmpty()) {
      return;
    }
    text.append("%nbitmaps:".formatted());
    text.append(
        BitmapAnswer.rows(
            bitmaps.stream()
                .map(bitmap ->
                    new BitmapInfo(
                        bitmap.name(), bitmap.granularityBytes(), bitmap.auto(), !bitmap.inUse()))
                .toList(),
            "  "));
  }

  private static String row(String name, String value) {
    return "%n%-14s%s".formatted(name + ":", value);
  }

  static String json(ImageReport report) {
    return Json.object(json -> write(json, report));
  }

  /** The images of a backing chain, the topmost first. */
  static String json(List<ImageReport> chain) {
    return Json.array(chain, InfoAnswer::write);
  }

  static String text(List<ImageReport> chain) {
    return chain.stream().map(InfoAnswer::text).collect(Collectors.joining("%n%n".formatted()));
  }

  private static void write(JsonGenerator json, ImageReport report) {
    json.writeStringProperty("filename", report.path().toString());
    json.writeStringProperty("format", report.format().toString());
    json.writeNumberProperty("virtual-size", report.virtualBytes());
    json.writeNumberProperty("actual-size", report.diskBytes());
    json.writeNumberProperty("file-length", report.fileBytes());
    Qcow2Details qcow2 = report.qcow2();
    json.writeBooleanProperty("dirty-flag", qcow2 != null && qcow2.dirty());
    if (qcow2 != null) {
      writeDetails(json, report.path(), qcow2);
    }
  }

  private static void writeDetails(JsonGenerator json, Path path, Qcow2Details qcow2) {
    json.writeNumberProperty("cluster-size", qcow2.clusterBytes());
    if (encrypted(qcow2)) {
      json.writeBooleanProperty("encrypted", true);
    }
    String backing = qcow2.backingFile();
    if (backing != null) {
      json.writeStringProperty("backing-filename", backing);
      if (backing.indexOf(':') < 0) { // not a protocol's
        json.writeStringProperty("full-backing-filename", path.resolveSibling(backing).toString());
      }
    }
    if (qcow2.backingFormat() != null) {
      json.writeStringProperty("backing-filename-format", qcow2.backingFormat());
    }
    if (!qcow2.snapshots().isEmpty()) {
      json.writeArrayPropertyStart("snapshots");
      qcow2.snapshots().forEach(snapshot -> SnapshotFields.write(json, snapshot));
      json.writeEndArray();
    }
    writeFormatSpecific(json, qcow2);
  }

  private static void writeFormatSpecific(JsonGenerator json, Qcow2Details qcow2) {
    json.writeObjectPropertyStart("format-specific");
    json.writeStringProperty("type", "qcow2");
    json.writeObjectPropertyStart("data");
    json.writeStringProperty("compat", compat(qcow2, "%s"));
    json.writeStringProperty("compression-type", qcow2.compression());
    json.writeNumberProperty("refcount-bits", qcow2.refcountBits());
    if (qcow2.version() > 2) {
      json.writeBooleanProperty("lazy-refcounts", qcow2.lazyRefcounts());
      json.writeBooleanProperty("corrupt", qcow2.corrupt());
      json.writeBooleanProperty("extended-l2", qcow2.extendedL2());
    }
    if (qcow2.dataFile() != null) {
      json.writeStringProperty("data-file", qcow2.dataFile());
      json.writeBooleanProperty(
          "data-file-raw", qcow2.autoclearFeatures().contains("raw external data"));
    }
    if (encrypted(qcow2)) {
      json.writeObjectPropertyStart("encrypt");
      json.writeStringProperty("format", qcow2.encryption());
      json.writeEndObject();
    }
    writeBitmaps(json, qcow2.bitmaps());
    writeNames(json, "incompatible-features", qcow2.incompatibleFeatures());
    writeNames(json, "compatible-features", qcow2.compatibleFeatures());
    writeNames(json, "autoclear-features", qcow2.autoclearFeatures());
    json.writeEndObject();
    json.writeEndObject();
  }

  private static void writeBitmaps(JsonGenerator json, List<Bitmap> bitmaps) {
    if (bitmaps.isEmpty()) {
      return;
    }
    json.writeArrayPropertyStart("bitmaps");
    for (Bitmap bitmap : bitmaps) {
      json.writeStartObject();
      writeNames(
          json,
          "flags",
          Stream.of(bitmap.inUse() ? "in-use" : "", bitmap.auto() ? "auto" : "")
              .filter(flag -> !flag.isEmpty())
              .toList());
      json.writeStringProperty("name", bitmap.name());
      json.writeNumberProperty("granularity", bitmap.granularityBytes());
      json.writeEndObject();
    }
    json.writeEndArray();
  }

  private static void writeNames(JsonGenerator json, String property, List<String> names) {
    json.writeArrayPropertyStart(property);
    names.forEach(json::writeString);
    json.writeEndArray();
  }

  private static boolean encrypted(Qcow2Details qcow2) {
    return !qcow2.encryption().equals("none");
  }

  private static String compat(Qcow2Details qcow2, String pattern) {
    return pattern.formatted(qcow2.version() == 2 ? "0.10" : "1.1");
  }
}
