package io.qnbd.server.control;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import tools.jackson.core.JsonGenerator;

/**
 * What reading the configuration file again changed; exports are told by name.
 *
 * @param file the configuration file
 * @param reopened closed and opened again, because their image is to be opened otherwise
 * @param changed given other settings while their clients stayed
 * @param unchanged how many exports of the file are as they were
 * @param failed what could not be done, each a sentence that names the export; the rest was done
 * @param later keys that were changed, but have an effect only when the server is started again
 */
public record ReloadReport(
    String file,
    List<String> added,
    List<String> removed,
    List<String> reopened,
    List<String> changed,
    long unchanged,
    List<String> failed,
    List<String> later) {

  public ReloadReport {
    added = List.copyOf(added);
    removed = List.copyOf(removed);
    reopened = List.copyOf(reopened);
    changed = List.copyOf(changed);
    failed = List.copyOf(failed);
    later = List.copyOf(later);
  }

  /** The report for a person, in one line for what went well and one for each other thing. */
  public List<String> lines() {
    List<String> parts = new ArrayList<>();
    say(parts, "added", added);
    say(parts, "removed", removed);
    say(parts, "reopened", reopened);
    say(parts, "changed", changed);
    parts.add(unchanged + " unchanged");
    List<String> lines = new ArrayList<>();
    lines.add("reloaded " + file + ": " + String.join("; ", parts));
    lines.addAll(failed);
    if (!later.isEmpty()) {
      lines.add("changed, but in effect only after the next start: " + String.join(", ", later));
    }
    return lines;
  }

  private static void say(List<String> parts, String what, List<String> names) {
    if (!names.isEmpty()) {
      parts.add(what + " " + String.join(", ", names.stream().map(n -> "'" + n + "'").toList()));
    }
  }

  void write(JsonGenerator json) {
    json.writeStringProperty("file", file);
    write(json, "added", added);
    write(json, "removed", removed);
    write(json, "reopened", reopened);
    write(json, "changed", changed);
    json.writeNumberProperty("unchanged", unchanged);
    write(json, "failed", failed);
    write(json, "later", later);
  }

  private static void write(JsonGenerator json, String name, List<String> texts) {
    json.writeArrayPropertyStart(name);
    texts.forEach(json::writeString);
    json.writeEndArray();
  }

  /**
   * Reads what {@link #write} wrote.
   *
   * @throws MalformedJsonException when a member is missing or of another kind
   */
  public static ReloadReport read(Map<String, Object> members) throws MalformedJsonException {
    if (!(members.get("unchanged") instanceof Long unchanged)
        || !(members.get("file") instanceof String file)) {
      throw new MalformedJsonException("the server's answer is no report of a reload");
    }
    return new ReloadReport(
        file,
        texts(members, "added"),
        texts(members, "removed"),
        texts(members, "reopened"),
        texts(members, "changed"),
        unchanged,
        texts(members, "failed"),
        texts(members, "later"));
  }

  private static List<String> texts(Map<String, Object> members, String name)
      throws MalformedJsonException {
    if (!(members.get(name) instanceof List<?> list)) {
      throw new MalformedJsonException("the server's answer has no list '" + name + "'");
    }
    return list.stream().map(String::valueOf).toList();
  }
}
