package io.qnbd.server.control;

import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.image.Snapshots;
import io.qnbd.server.export.Export;
import java.io.IOException;
import java.util.List;
import tools.jackson.core.JsonGenerator;

/**
 * Does what is asked of the exports and says it as a line of JSON.
 *
 * <p>Thread-safe; a call blocks for as long as the image does.
 */
final class Commands {
  private final List<ControlledExport> exports;

  Commands(List<ControlledExport> exports) {
    this.exports = List.copyOf(exports);
  }

  /** The reply to the request, without the line's end. */
  String run(ControlRequest request) throws IOException {
    return switch (request) {
      case ControlRequest.Exports() -> listExports();
      case ControlRequest.Stats(String export) ->
          stats(
              export == null
                  ? exports.stream().map(ControlledExport::export).toList()
                  : List.of(find(export)));
      case ControlRequest.ListSnapshots(String export) -> listSnapshots(snapshots(export));
      case ControlRequest.CreateSnapshot(String export, String name) -> {
        snapshots(export).create(name);
        yield done();
      }
      case ControlRequest.DeleteSnapshot(String export, String name) -> {
        snapshots(export).delete(name);
        yield done();
      }
      case ControlRequest.RenameSnapshot(String export, String name, String newName) -> {
        snapshots(export).rename(name, newName);
        yield done();
      }
    };
  }

  /** The reply to a request that failed. */
  static String failure(String sentence) {
    return JsonLine.of(json -> json.writeStringProperty("error", sentence));
  }

  private static String done() {
    return JsonLine.of(json -> json.writeBooleanProperty("done", true));
  }

  private String listExports() {
    return JsonLine.of(json -> {
      json.writeArrayPropertyStart("exports");
      exports.forEach(export -> write(json, export));
      json.writeEndArray();
    });
  }

  private static void write(JsonGenerator json, ControlledExport controlled) {
    Export export = controlled.export();
    json.writeStartObject();
    json.writeStringProperty("name", export.info().name());
    json.writeStringProperty("file", controlled.path().toString());
    json.writeStringProperty("format", controlled.format());
    json.writeNumberProperty("size", export.image().virtualBytes());
    json.writeBooleanProperty("read-only", export.image().readOnly());
    json.writeNumberProperty("connections", export.requests().connections());
    json.writeEndObject();
  }

  private static String stats(List<Export> asked) {
    return JsonLine.of(json -> {
      json.writeArrayPropertyStart("stats");
      asked.forEach(export -> ExportStats.of(export).write(json));
      json.writeEndArray();
    });
  }

  private static String listSnapshots(Snapshots snapshots) throws IOException {
    List<Snapshot> list = snapshots.list();
    return JsonLine.of(json -> {
      json.writeArrayPropertyStart("snapshots");
      list.forEach(snapshot -> SnapshotFields.write(json, snapshot));
      json.writeEndArray();
    });
  }

  private Snapshots snapshots(String export) throws IOException {
    return find(export).image().snapshots();
  }

  /** By name; where there is only one export, the empty name means it too. */
  private Export find(String name) throws IOException {
    for (ControlledExport controlled : exports) {
      if (controlled.export().info().name().equals(name)) {
        return controlled.export();
      }
    }
    if (name.isEmpty() && exports.size() == 1) {
      return exports.getFirst().export();
    }
    throw new IOException("no export is named '" + name + "'");
  }
}
