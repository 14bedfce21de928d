package io.qnbd.server;

import io.qnbd.image.BitmapInfo;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.BitmapFields;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** How dirty bitmaps are listed. */
final class BitmapAnswer {
  private BitmapAnswer() {}

  private static final String ROW = "%-32s %11s  %s";

  /** A table with a head; one sentence when there is nothing. */
  static String text(List<BitmapInfo> bitmaps) {
    return bitmaps.isEmpty() ? "no bitmaps" : rows(bitmaps, "").strip();
  }

  /** The table's lines, each after a line break and {@code indent}. */
  static String rows(List<BitmapInfo> bitmaps, String indent) {
    String head = ROW.formatted("NAME", "GRANULARITY", "STATE");
    return Stream.concat(Stream.of(head), bitmaps.stream().map(BitmapAnswer::row))
        .map(row -> System.lineSeparator() + indent + row)
        .collect(Collectors.joining());
  }

  private static String row(BitmapInfo bitmap) {
    return ROW.formatted(
        Printable.text(bitmap.name()), Sizes.text(bitmap.granularityBytes()), state(bitmap));
  }

  private static String state(BitmapInfo bitmap) {
    if (!bitmap.consistent()) {
      return "inconsistent";
    }
    return bitmap.enabled() ? "enabled" : "disabled";
  }

  static String json(Path path, List<BitmapInfo> bitmaps) {
    return Json.object(json -> {
      json.writeStringProperty("filename", path.toString());
      json.writeArrayPropertyStart("bitmaps");
      bitmaps.forEach(bitmap -> BitmapFields.write(json, bitmap));
      json.writeEndArray();
    });
  }
}
