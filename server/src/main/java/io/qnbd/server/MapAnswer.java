package io.qnbd.server;

import io.qnbd.image.MapExtent;
import io.qnbd.image.MapSink;
import io.qnbd.server.config.Sizes;
import java.io.PrintWriter;
import java.util.List;

/**
 * Prints what {@code qnbd map} finds, as it is found: a map may have millions of lines.
 *
 * <p>Owner: the thread of the command.
 */
final class MapAnswer implements MapSink {
  private static final String ROW = "%-14s %12s  %-12s %-14s %s%n";

  private final PrintWriter out;
  private final boolean json;
  private final List<String> files;
  private long at;
  private boolean first = true;
  private long dataBytes;
  private long zeroBytes;
  private long absentBytes;

  /**
   * @param files the names of the images of the chain, the topmost first
   */
  MapAnswer(PrintWriter out, boolean json, long start, List<String> files) {
    this.out = out;
    this.json = json;
    this.at = start;
    this.files = files;
  }

  @Override
  public boolean extent(long bytes, MapExtent extent) {
    if (json) {
      printJson(bytes, extent);
    } else if (extent.present()) {
      printRow(bytes, extent);
    }
    first = false;
    at += bytes;
    if (!extent.zero()) {
      dataBytes += bytes;
    } else if (extent.present()) {
      zeroBytes += bytes;
    } else {
      absentBytes += bytes;
    }
    return !out.checkError();
  }

  private void printJson(long bytes, MapExtent extent) {
    out.print(first ? "[" : ",\n");
    out.print(
        "{ \"start\": %d, \"length\": %d, \"depth\": %d, \"present\": %b, \"zero\": %b, \"data\": %b, \"compressed\": %b"
            .formatted(
                at,
                bytes,
                extent.depth(),
                extent.present(),
                extent.zero(),
                extent.data(),
                extent.compressed()));
    if (extent.hostOffset() != MapExtent.NOWHERE) {
      out.print(", \"offset\": " + extent.hostOffset());
    }
    out.print("}");
  }

  private void printRow(long bytes, MapExtent extent) {
    if (first) {
      out.printf(ROW, "start", "length", "what", "host offset", "file");
    }
    out.printf(
        ROW,
        "0x%x".formatted(at),
        Sizes.text(bytes),
        what(extent),
        extent.hostOffset() == MapExtent.NOWHERE ? "-" : "0x%x".formatted(extent.hostOffset()),
        extent.depth() < files.size() ? files.get(extent.depth()) : "");
  }

  private static String what(MapExtent extent) {
    if (extent.compressed()) {
      return "compressed";
    }
    return extent.zero() ? "zeroes" : "data";
  }

  /** The end of the list. */
  void end() {
    if (json) {
      out.println(first ? "[]" : "]");
    } else {
      out.println(
          "%s of data, %s marked as zeroes, %s not allocated"
              .formatted(Sizes.text(dataBytes), Sizes.text(zeroBytes), Sizes.text(absentBytes)));
    }
  }
}
