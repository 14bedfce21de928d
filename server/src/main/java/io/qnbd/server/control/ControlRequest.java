package io.qnbd.server.control;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** What can be asked over the control socket. */
public sealed interface ControlRequest {

  /** Which exports there are. */
  record Exports() implements ControlRequest {}

  /**
   * What the images did.
   *
   * @param export null for all
   */
  record Stats(@Nullable String export) implements ControlRequest {}

  /** Which snapshots an export has. */
  record ListSnapshots(String export) implements ControlRequest {}

  /** Take one. */
  record CreateSnapshot(String export, String name) implements ControlRequest {}

  /**
   * Remove one.
   *
   * @param name a snapshot's name or id
   */
  record DeleteSnapshot(String export, String name) implements ControlRequest {}

  /**
   * Give one another name.
   *
   * @param name a snapshot's name or id
   */
  record RenameSnapshot(String export, String name, String newName) implements ControlRequest {}

  /** The request as a line of JSON, without its end. */
  default String line() {
    return switch (this) {
      case Exports() -> line("exports", null, null, null);
      case Stats(String export) -> line("stats", export, null, null);
      case ListSnapshots(String export) -> line("snapshot-list", export, null, null);
      case CreateSnapshot(String export, String name) ->
          line("snapshot-create", export, name, null);
      case DeleteSnapshot(String export, String name) ->
          line("snapshot-delete", export, name, null);
      case RenameSnapshot(String export, String name, String newName) ->
          line("snapshot-rename", export, name, newName);
    };
  }

  private static String line(
      String command, @Nullable String export, @Nullable String name, @Nullable String newName) {
    return JsonLine.of(json -> {
      json.writeStringProperty("command", command);
      if (export != null) {
        json.writeStringProperty("export", export);
      }
      if (name != null) {
        json.writeStringProperty("name", name);
      }
      if (newName != null) {
        json.writeStringProperty("new-name", newName);
      }
    });
  }

  /**
   * Reads a request from a line.
   *
   * @throws MalformedJsonException with a sentence, when it is none
   */
  static ControlRequest parse(byte[] line) throws MalformedJsonException {
    Members members = new Members(new LinkedHashMap<>(JsonLine.parse(line)));
    String command = members.take("command");
    ControlRequest request =
        switch (command) {
          case "exports" -> new Exports();
          case "stats" -> new Stats(members.takeIfThere("export"));
          case "snapshot-list" -> new ListSnapshots(members.take("export"));
          case "snapshot-create" ->
              new CreateSnapshot(members.take("export"), members.take("name"));
          case "snapshot-delete" ->
              new DeleteSnapshot(members.take("export"), members.take("name"));
          case "snapshot-rename" ->
              new RenameSnapshot(
                  members.take("export"), members.take("name"), members.take("new-name"));
          default -> throw new MalformedJsonException("unknown command '" + command + "'");
        };
    members.requireNoMore(command);
    return request;
  }

  /** The members that have not been taken yet; what is left in the end nobody asked for. */
  record Members(Map<String, Object> left) {
    String take(String name) throws MalformedJsonException {
      String value = takeIfThere(name);
      if (value == null) {
        throw new MalformedJsonException("the member '" + name + "' is missing");
      }
      return value;
    }

    @Nullable String takeIfThere(String name) throws MalformedJsonException {
      Object value = left.remove(name);
      if (value == null || value instanceof String) {
        return (String) value;
      }
      throw new MalformedJsonException("the member '" + name + "' is not a string");
    }

    void requireNoMore(String command) throws MalformedJsonException {
      Set<String> names = left.keySet();
      if (!names.isEmpty()) {
        throw new MalformedJsonException(
            "'" + command + "' has no member '" + names.iterator().next() + "'");
      }
    }
  }
}
