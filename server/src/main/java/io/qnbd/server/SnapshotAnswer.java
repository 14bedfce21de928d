package io.qnbd.server;

import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.server.config.Sizes;
import io.qnbd.server.control.SnapshotFields;
import java.nio.file.Path;
import java.time.Duration;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** How snapshots are listed. */
final class SnapshotAnswer {
  private SnapshotAnswer() {}

  private static final DateTimeFormatter TAKEN =
      DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss", Locale.ROOT);

  private static final String ROW = "%-4s %-24s %-19s  %10s  %10s  %s";

  /** A table with a head, its times in the reader's zone; one sentence when there is nothing. */
  static String text(List<Snapshot> snapshots) {
    return snapshots.isEmpty() ? "no snapshots" : rows(snapshots, "").strip();
  }

  /** The table's lines, each after a line break and {@code indent}. */
  static String rows(List<Snapshot> snapshots, String indent) {
    String head = ROW.formatted("ID", "NAME", "TAKEN", "DISK", "VM STATE", "VM CLOCK");
    return Stream.concat(Stream.of(head), snapshots.stream().map(SnapshotAnswer::row))
        .map(row -> System.lineSeparator() + indent + row)
        .collect(Collectors.joining());
  }

  private static String row(Snapshot snapshot) {
    Duration clock = Duration.ofNanos(snapshot.vmClockNanos());
    return ROW.formatted(
        Printable.text(snapshot.id()),
        Printable.text(snapshot.name()),
        TAKEN.format(snapshot.taken().atZone(ZoneId.systemDefault())),
        Sizes.text(snapshot.virtualBytes()),
        Sizes.text(snapshot.vmStateBytes()),
        "%02d:%02d:%02d.%03d"
            .formatted(
                clock.toHours(),
                clock.toMinutesPart(),
                clock.toSecondsPart(),
                clock.toMillisPart()));
  }

  static String json(Path path, List<Snapshot> snapshots) {
    return Json.object(json -> {
      json.writeStringProperty("filename", path.toString());
      json.writeArrayPropertyStart("snapshots");
      snapshots.forEach(snapshot -> SnapshotFields.write(json, snapshot));
      json.writeEndArray();
    });
  }
}
