package io.qnbd.server.control;

import io.qnbd.image.Bitmaps;
import io.qnbd.image.Compaction;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageReport.Snapshot;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.Snapshots;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ExportSettings;
import io.qnbd.server.net.ClientInfo;
import java.io.IOException;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JsonGenerator;

/**
 * Does what is asked of the server and says it as a line of JSON.
 *
 * <p>Thread-safe; a call blocks for as long as the image does.
 */
final class Commands {
  private final ControlledServer server;

  Commands(ControlledServer server) {
    this.server = server;
  }

  /** The reply to the request, without the line's end. */
  String run(ControlRequest request) throws IOException {
    return switch (request) {
      case ControlRequest.Exports() -> listExports();
      case ControlRequest.Stats(String export) -> stats(export);
      case ControlRequest.ListSnapshots(String export) ->
          server.use(export, used -> listSnapshots(used.export().image().snapshots()));
      case ControlRequest.CreateSnapshot(String export, String name) ->
          server.use(
              export,
              used -> {
                used.export().image().snapshots().create(name);
                return done();
              });
      case ControlRequest.DeleteSnapshot(String export, String name) ->
          server.use(
              export,
              used -> {
                used.export().image().snapshots().delete(name);
                return done();
              });
      case ControlRequest.RenameSnapshot(String export, String name, String newName) ->
          server.use(
              export,
              used -> {
                used.export().image().snapshots().rename(name, newName);
                return done();
              });
      case ControlRequest.ListBitmaps(String export) ->
          server.use(export, used -> BitmapCommands.list(used.export().image().bitmaps()));
      case ControlRequest.AddBitmap add ->
          onBitmaps(add.export(), bitmaps -> BitmapCommands.add(bitmaps, add));
      case ControlRequest.ChangeBitmap change ->
          onBitmaps(change.export(), bitmaps -> BitmapCommands.change(bitmaps, change));
      case ControlRequest.MergeBitmap(String export, String name, String source) ->
          onBitmaps(export, bitmaps -> bitmaps.merge(name, source));
      case ControlRequest.AddExport(Map<String, Object> keys) -> {
        ControlledExport added = server.add(keys);
        yield JsonLine.of(json -> {
          json.writeName("added");
          write(json, added);
        });
      }
      case ControlRequest.RemoveExport(String export) -> {
        server.remove(export);
        yield done();
      }
      case ControlRequest.Resize(String export, long bytes) ->
          server.use(export, used -> resize(used.export(), bytes));
      case ControlRequest.Compact(String export) ->
          server.use(export, used -> compact(used.export().image()));
      case ControlRequest.Reload() -> JsonLine.of(server.reload()::write);
      case ControlRequest.Clients() -> listClients(server.clients());
      case ControlRequest.Disconnect(long client) -> {
        if (!server.disconnect(client)) {
          throw new IOException("there is no client " + client);
        }
        yield done();
      }
    };
  }

  private interface BitmapChange {
    void make(Bitmaps bitmaps) throws IOException;
  }

  private String onBitmaps(String export, BitmapChange change) throws IOException {
    return server.use(
        export,
        used -> {
          change.make(used.export().image().bitmaps());
          return done();
        });
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
      server.exports().forEach(export -> write(json, export));
      json.writeEndArray();
    });
  }

  private static void write(JsonGenerator json, ControlledExport controlled) {
    Export export = controlled.export();
    ExportSettings settings = export.settings();
    json.writeStartObject();
    json.writeStringProperty("name", settings.name());
    json.writeStringProperty("description", settings.description());
    json.writeStringProperty("file", controlled.path().toString());
    json.writeStringProperty("format", controlled.format());
    json.writeNumberProperty("size", export.image().virtualBytes());
    json.writeBooleanProperty("read-only", export.image().readOnly());
    json.writeBooleanProperty("temporary", controlled.temporary());
    json.writeBooleanProperty("default", controlled.chosen());
    json.writeBooleanProperty("tls-required", settings.tlsRequired());
    json.writeNumberProperty("connections", export.requests().connections());
    json.writeNumberProperty("max-connections", settings.connectionsMax());
    json.writeNumberProperty("max-connections-per-client", settings.connectionsPerClientMax());
    json.writeNumberProperty("bytes-per-second", settings.rates().bytesPerSecond());
    json.writeNumberProperty("requests-per-second", settings.rates().requestsPerSecond());
    json.writeStringProperty("from", controlled.origin().toString());
    json.writeEndObject();
  }

  private static String listClients(List<ClientInfo> clients) {
    return JsonLine.of(json -> {
      json.writeArrayPropertyStart("clients");
      clients.forEach(client -> write(json, client));
      json.writeEndArray();
    });
  }

  private static void write(JsonGenerator json, ClientInfo client) {
    json.writeStartObject();
    json.writeNumberProperty("id", client.id());
    json.writeStringProperty("peer", client.peer());
    if (client.export() != null) {
      json.writeStringProperty("export", client.export());
    }
    json.writeBooleanProperty("tls", client.tls());
    if (client.identity() != null) {
      json.writeStringProperty("identity", client.identity());
    }
    json.writeStringProperty("since", client.since().truncatedTo(ChronoUnit.SECONDS).toString());
    json.writeEndObject();
  }

  private static String resize(Export export, long bytes) throws IOException {
    DiskImage image = export.image();
    if (bytes < image.virtualBytes()) {
      throw new IOException(
          "export '%s' has %d bytes, and a disk in use cannot shrink to %d"
              .formatted(export.settings().name(), image.virtualBytes(), bytes));
    }
    image.resize(bytes);
    return JsonLine.of(json -> json.writeNumberProperty("size", image.virtualBytes()));
  }

  private static String compact(DiskImage image) throws IOException {
    Compaction done = image.compact(ProgressListener.NONE);
    return JsonLine.of(json -> {
      json.writeNumberProperty("old-length", done.oldFileBytes());
      json.writeNumberProperty("length", done.fileBytes());
      json.writeNumberProperty("moved", done.movedClusters());
      json.writeNumberProperty("stayed", done.stayedClusters());
    });
  }

  private String stats(@Nullable String export) throws IOException {
    if (export != null) {
      return server.use(export, used -> stats(List.of(used.export())));
    }
    return stats(server.exports().stream().map(ControlledExport::export).toList());
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
}
