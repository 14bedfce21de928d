package io.qnbd.server;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Compaction;
import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.BitmapFields;
import io.qnbd.server.control.MalformedJsonException;
import io.qnbd.server.control.ReloadReport;
import io.qnbd.server.control.SnapshotFields;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** What {@code qnbd ctl} prints of a server's reply; a server may be newer and say more. */
final class CtlAnswer {
  private CtlAnswer() {}

  private static final String EXPORT_ROW = "%-24s %10s  %-6s  %-9s  %11s";
  private static final String CLIENT_ROW = "%6s  %-24s %-20s  %-20s  %s";

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

  static String clients(Map<String, Object> reply) throws MalformedJsonException {
    List<String> rows = new ArrayList<>();
    rows.add(CLIENT_ROW.formatted("ID", "PEER", "EXPORT", "SINCE", "TLS").stripTrailing());
    for (Map<?, ?> client : objects(reply, "clients")) {
      Object export = client.get("export");
      rows.add(
          CLIENT_ROW.formatted(
              client.get("id"),
              printable(client.get("peer")),
              export == null ? "(handshake)" : printable(export),
              printable(client.get("since")),
              tls(client)));
    }
    return lines(rows);
  }

  private static String tls(Map<?, ?> client) {
    if (!Boolean.TRUE.equals(client.get("tls"))) {
      return "no";
    }
    return client.get("identity") == null ? "yes" : printable(client.get("identity"));
  }

  private static String printable(@Nullable Object value) {
    return Printable.text(String.valueOf(value));
  }

  static String added(Map<String, Object> reply) throws MalformedJsonException {
    if (!(reply.get("added") instanceof Map<?, ?> export)) {
      throw new MalformedJsonException("the server's answer does not say what it added");
    }
    return Printable.text(
        "serving %s as '%s' (%s, %s)"
            .formatted(
                export.get("file"),
                export.get("name"),
                export.get("size") instanceof Long bytes ? Sizes.text(bytes) : "?",
                export.get("format")));
  }

  static String resized(Map<String, Object> reply) throws MalformedJsonException {
    if (!(reply.get("size") instanceof Long bytes)) {
      throw new MalformedJsonException("the server's answer does not say the new size");
    }
    return "the disk has "
        + Sizes.textWithBytes(bytes)
        + " now; clients see that when they connect again";
  }

  static String compacted(Map<String, Object> reply) throws MalformedJsonException {
    if (!(reply.get("old-length") instanceof Long oldLength)
        || !(reply.get("length") instanceof Long length)
        || !(reply.get("moved") instanceof Long moved)
        || !(reply.get("stayed") instanceof Long stayed)) {
      throw new MalformedJsonException("the server's answer does not say what it did");
    }
    return CompactCommand.sentence(new Compaction(oldLength, length, moved, stayed));
  }

  static String reloaded(Map<String, Object> reply) throws MalformedJsonException {
    return lines(ReloadReport.read(reply).lines().stream().map(Printable::text).toList());
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

  static String bitmaps(Map<String, Object> reply) throws MalformedJsonException {
    List<BitmapInfo> bitmaps = new ArrayList<>();
    for (Map<?, ?> fields : objects(reply, "bitmaps")) {
      bitmaps.add(BitmapFields.read(fields));
    }
    return BitmapAnswer.text(bitmaps);
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
