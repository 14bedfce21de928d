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

  /** Which dirty bitmaps an export has. */
  record ListBitmaps(String export) implements ControlRequest {}

  /**
   * Add one.
   *
   * @param granularityBytes 0 for the default
   * @param replaced one that stops recording at the moment at which this one begins; or null
   */
  record AddBitmap(
      String export, String name, long granularityBytes, boolean enabled, @Nullable String replaced)
      implements ControlRequest {

    private String bitmapLine() {
      return JsonLine.of(json -> {
        json.writeStringProperty("command", "bitmap-add");
        json.writeStringProperty("export", export);
        json.writeStringProperty("name", name);
        if (granularityBytes != 0) {
          json.writeNumberProperty("granularity", granularityBytes);
        }
        if (!enabled) {
          json.writeBooleanProperty("enabled", false);
        }
        if (replaced != null) {
          json.writeStringProperty("replaces", replaced);
        }
      });
    }

    private static AddBitmap take(Members members) throws MalformedJsonException {
      AddBitmap add =
          new AddBitmap(
              members.take("export"),
              members.take("name"),
              members.takeNumberIfThere("granularity", 0),
              members.takeFlagIfThere("enabled", true),
              members.takeIfThere("replaces"));
      if (add.replaced() != null && !add.enabled()) {
        throw new MalformedJsonException("a bitmap that replaces another one is enabled");
      }
      return add;
    }
  }

  /** Do something with one that is there. */
  record ChangeBitmap(String export, BitmapAction action, String name) implements ControlRequest {}

  /** Add what {@code source} has to the bitmap {@code name}. */
  record MergeBitmap(String export, String name, String source) implements ControlRequest {}

  /** What can be done with a bitmap that takes no more than its name. */
  enum BitmapAction {
    REMOVE("bitmap-remove"),
    ENABLE("bitmap-enable"),
    DISABLE("bitmap-disable"),
    CLEAR("bitmap-clear");

    private final String command;

    BitmapAction(String command) {
      this.command = command;
    }
  }

  /**
   * Serve another image.
   *
   * @param keys those of an export in the configuration file: strings, longs, booleans and lists of
   *     strings
   */
  record AddExport(Map<String, Object> keys) implements ControlRequest {}

  /** Serve an export no more. */
  record RemoveExport(String export) implements ControlRequest {}

  /** Make an export's disk larger. */
  record Resize(String export, long bytes) implements ControlRequest {}

  /** Give what an export's image does not use back to the host. */
  record Compact(String export) implements ControlRequest {}

  /** Read the configuration file again. */
  record Reload() implements ControlRequest {}

  /** Who is connected. */
  record Clients() implements ControlRequest {}

  /** Send a client away. */
  record Disconnect(long client) implements ControlRequest {}

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
      case ListBitmaps(String export) -> line("bitmap-list", export, null, null);
      case AddBitmap add -> add.bitmapLine();
      case ChangeBitmap(String export, BitmapAction action, String name) ->
          line(action.command, export, name, null);
      case MergeBitmap(String export, String name, String source) ->
          JsonLine.of(json -> {
            json.writeStringProperty("command", "bitmap-merge");
            json.writeStringProperty("export", export);
            json.writeStringProperty("name", name);
            json.writeStringProperty("source", source);
          });
      case AddExport(Map<String, Object> keys) ->
          JsonLine.of(json -> {
            json.writeStringProperty("command", "export-add");
            keys.forEach((key, value) -> JsonLine.write(json, key, value));
          });
      case RemoveExport(String export) -> line("export-remove", export, null, null);
      case Resize(String export, long bytes) ->
          JsonLine.of(json -> {
            json.writeStringProperty("command", "resize");
            json.writeStringProperty("export", export);
            json.writeNumberProperty("size", bytes);
          });
      case Compact(String export) -> line("compact", export, null, null);
      case Reload() -> line("reload", null, null, null);
      case Clients() -> line("clients", null, null, null);
      case Disconnect(long client) ->
          JsonLine.of(json -> {
            json.writeStringProperty("command", "client-disconnect");
            json.writeNumberProperty("id", client);
          });
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
          case "bitmap-list" -> new ListBitmaps(members.take("export"));
          case "bitmap-add" -> AddBitmap.take(members);
          case "bitmap-remove", "bitmap-enable", "bitmap-disable", "bitmap-clear" ->
              new ChangeBitmap(members.take("export"), action(command), members.take("name"));
          case "bitmap-merge" ->
              new MergeBitmap(members.take("export"), members.take("name"), members.take("source"));
          case "export-add" -> new AddExport(members.takeAll());
          case "export-remove" -> new RemoveExport(members.take("export"));
          case "resize" -> new Resize(members.take("export"), members.takeNumber("size"));
          case "compact" -> new Compact(members.take("export"));
          case "reload" -> new Reload();
          case "clients" -> new Clients();
          case "client-disconnect" -> new Disconnect(members.takeNumber("id"));
          default -> throw new MalformedJsonException("unknown command '" + command + "'");
        };
    members.requireNoMore(command);
    return request;
  }

  private static BitmapAction action(String command) {
    for (BitmapAction action : BitmapAction.values()) {
      if (action.command.equals(command)) {
        return action;
      }
    }
    throw new AssertionError("no action is called " + command);
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

    long takeNumber(String name) throws MalformedJsonException {
      if (left.remove(name) instanceof Long number) {
        return number;
      }
      throw new MalformedJsonException("the member '" + name + "' is missing or not a number");
    }

    long takeNumberIfThere(String name, long otherwise) throws MalformedJsonException {
      return left.containsKey(name) ? takeNumber(name) : otherwise;
    }

    boolean takeFlagIfThere(String name, boolean otherwise) throws MalformedJsonException {
      Object value = left.remove(name);
      if (value == null || value instanceof Boolean) {
        return value == null ? otherwise : (Boolean) value;
      }
      throw new MalformedJsonException("the member '" + name + "' is neither true nor false");
    }

    /** What is left, for whoever knows its meaning. */
    Map<String, Object> takeAll() {
      Map<String, Object> all = new LinkedHashMap<>(left);
      left.clear();
      return all;
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
