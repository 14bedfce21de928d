package io.qnbd.server;

import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.MalformedJsonException;
import io.qnbd.server.control.SnapshotFields;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/** What {@code qnbd ctl} prints of a server's reply; a server may be newer and say more. */
final class CtlAnswer {
  private CtlAnswer() {}

  private static final String EXPORT_ROW = "%-24s %10s  %-6s  %-9s  %11s";

  /** Makes a reply's text. */
  interface Text {
    String of(Map<String, Object> reply) throws MalformedJsonException;
  }

  static String exports(Map<String, Object> reply) throws MalformedJsonException {
    List<String> rows = new ArrayList<>();
    rows.add(EXPORT_ROW.formatted("NAME", "SIZE", "FORMAT", "READ-ONLY", "CONNECTIONS"));
    for (Map<?, ?> export : objects(reply, "exports")) {
      rows.add(
          EXPORT_ROW.formatted(
              Printable.text(String.valueOf(export.get("name"))),
              export.get("size") instanceof Long bytes ? Sizes.text(bytes) : "?",
              Printable.text(String.valueOf(export.get("format"))),
              Boolean.TRUE.equals(export.get("read-only")) ? "yes" : "no",
              export.get("connections")));
    }
    return lines(rows);
  }

  static String stats(Map<String, Object> reply) throws MalformedJsonException {
    List<String> rows = new ArrayList<>();
    for (Map<?, ?> stats : objects(reply, "stats")) {
      rows.add(Printable.text(String.valueOf(stats.get("export"))) + ":");
      stats.forEach((name, value) -> {
        if (value instanceof Number) {
          rows.add("  %-20s %s".formatted(Printable.text(String.valueOf(name)), value));
        }
      });
    }
    return lines(rows);
  }

  static String snapshots(Map<String, Object> reply) throws MalformedJsonException {
    List<Snapshot> snapshots = new ArrayList<>();
    for (Map<?, ?> fields : objects(reply, "snapshots")) {
      snapshots.add(SnapshotFields.read(fields));
    }
    return SnapshotAnswer.text(snapshots);
  }

  private static List<Map<?, ?>> objects(Map<String, Object> reply, String name)
      throws MalformedJsonException {
    if (!(reply.get(name) instanceof List<?> elements)) {
      throw new MalformedJsonException("the server's answer has no list '" + name + "'");
    }
    List<Map<?, ?>> objects = new ArrayList<>();
    for (Object element : elements) {
      if (!(element instanceof Map<?, ?> object)) {
        throw new MalformedJsonException("the server's list '" + name + "' holds no objects");
      }
      objects.add(object);
    }
    return objects;
  }

  private static String lines(List<String> lines) {
    return lines.stream().collect(Collectors.joining(System.lineSeparator()));
  }
}
