package io.qnbd.server.control;

import io.qnbd.image.ImageReport.Snapshot;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import tools.jackson.core.JsonGenerator;

/** A snapshot as JSON, with qemu-img's field names and the size of its disk. */
public final class SnapshotFields {
  private SnapshotFields() {}

  /** Writes the snapshot as an object. */
  public static void write(JsonGenerator json, Snapshot snapshot) {
    Instant taken = snapshot.taken();
    Duration clock = Duration.ofNanos(snapshot.vmClockNanos());
    json.writeStartObject();
    json.writeStringProperty("id", snapshot.id());
    json.writeStringProperty("name", snapshot.name());
    json.writeNumberProperty("vm-state-size", snapshot.vmStateBytes());
    json.writeNumberProperty("date-sec", taken.getEpochSecond());
    json.writeNumberProperty("date-nsec", taken.getNano());
    json.writeNumberProperty("vm-clock-sec", clock.toSeconds());
    json.writeNumberProperty("vm-clock-nsec", clock.toNanosPart());
    json.writeNumberProperty("virtual-size", snapshot.virtualBytes());
    json.writeEndObject();
  }

  /**
   * Reads what {@link #write} wrote.
   *
   * @throws MalformedJsonException when a field is missing or of another kind
   */
  public static Snapshot read(Map<?, ?> fields) throws MalformedJsonException {
    return new Snapshot(
        text(fields, "id"),
        text(fields, "name"),
        Instant.ofEpochSecond(number(fields, "date-sec"), number(fields, "date-nsec")),
        number(fields, "virtual-size"),
        number(fields, "vm-state-size"),
        Duration.ofSeconds(number(fields, "vm-clock-sec"), number(fields, "vm-clock-nsec"))
            .toNanos());
  }

  private static String text(Map<?, ?> fields, String name) throws MalformedJsonException {
    if (fields.get(name) instanceof String text) {
      return text;
    }
    throw new MalformedJsonException("a snapshot's field '" + name + "' is not a string");
  }

  private static long number(Map<?, ?> fields, String name) throws MalformedJsonException {
    if (fields.get(name) instanceof Long number) {
      return number;
    }
    throw new MalformedJsonException("a snapshot's field '" + name + "' is not a number");
  }
}
