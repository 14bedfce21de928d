package io.qnbd.server.export;

import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The exports of a server by name, in the order in which they were added; a replacement takes the
 * place of what it replaces.
 *
 * <p>The default export, which clients get for the empty name, is at each moment
 *
 * <ol>
 *   <li>the export whose name is empty, if there is one;
 *   <li>else the one chosen, while it is served: with {@link #withDefault} or {@link
 *       #chooseDefault}, or by {@link #of} because it was the only one;
 *   <li>else none.
 * </ol>
 *
 * <p>So adding and removing others never makes another export the default: a client that lost its
 * connection and names none would write to the wrong disk.
 *
 * <p>A name is looked up in one moment's set: a client that has found an export keeps that object,
 * also when another one gets the name afterwards.
 *
 * <p>Thread-safe and never blocks a reader: a change makes a new set of exports and puts it in the
 * place of the old one. Changes are made one at a time under this object's monitor.
 */
public final class ServedExports {

  /** One moment's exports. Immutable. */
  private record Served(Map<String, Export> byName, @Nullable String defaultName) {}

  private volatile Served served;

  /** Serves {@code exports}, with a default export only when there is exactly one. */
  public static ServedExports of(List<Export> exports) {
    return new ServedExports(
        exports, exports.size() == 1 ? exports.getFirst().settings().name() : null);
  }

  /**
   * Serves {@code exports}, and the one named {@code defaultName} also under the empty name.
   *
   * @throws IllegalArgumentException when there is no such export
   */
  public static ServedExports withDefault(List<Export> exports, String defaultName) {
    for (Export export : exports) {
      if (export.settings().name().equals(defaultName)) {
        return new ServedExports(exports, defaultName);
      }
    }
    throw new IllegalArgumentException(
        "the default export " + WireStrings.quote(defaultName) + " is not among the exports");
  }

  private ServedExports(List<Export> exports, @Nullable String defaultName) {
    this.served = new Served(Map.of(), defaultName);
    exports.forEach(this::add);
  }

  /**
   * Adds an export after the others.
   *
   * @throws IllegalArgumentException when its name is taken, or there are too many
   */
  public synchronized void add(Export export) {
    Map<String, Export> byName = new LinkedHashMap<>(served.byName);
    if (byName.size() >= WireLimits.EXPORTS_MAX) {
      throw new IllegalArgumentException(
          "%d exports are served, which is the most".formatted(byName.size()));
    }
    if (byName.put(export.settings().name(), export) != null) {
      throw new IllegalArgumentException(
          "two exports are named " + WireStrings.quote(export.settings().name()));
    }
    served = new Served(byName, served.defaultName);
  }

  /**
   * Takes an export out: no client finds it from now on. Those that use it, or have found it, are
   * the caller's to send away.
   *
   * @return false when it was not served
   */
  public synchronized boolean remove(Export export) {
    Map<String, Export> byName = new LinkedHashMap<>(served.byName);
    boolean removed = byName.remove(export.settings().name(), export);
    served = new Served(byName, served.defaultName);
    return removed;
  }

  /**
   * Puts one export in the place of another with the same name, in one step.
   *
   * @return false when {@code old} was not served; then nothing is changed
   * @throws IllegalArgumentException when the names differ
   */
  public synchronized boolean replace(Export old, Export replacement) {
    String name = replacement.settings().name();
    if (!old.settings().name().equals(name)) {
      throw new IllegalArgumentException(
          "an export named %s cannot replace %s"
              .formatted(WireStrings.quote(name), WireStrings.quote(old.settings().name())));
    }
    Map<String, Export> byName = new LinkedHashMap<>(served.byName);
    boolean replaced = byName.replace(name, old, replacement);
    served = new Served(byName, served.defaultName);
    return replaced;
  }

  /**
   * Says which export clients get that name none.
   *
   * @param name need not be served yet; null for none
   */
  public synchronized void chooseDefault(@Nullable String name) {
    served = new Served(served.byName, name);
  }

  /** The exports of this moment, in order. */
  public List<Export> exports() {
    return new ArrayList<>(served.byName.values());
  }

  /** The export of that name; the empty name means the default export. */
  public Optional<Export> export(String name) {
    Served now = served;
    Export named = now.byName.get(name);
    if (named == null && name.isEmpty() && now.defaultName != null) {
      named = now.byName.get(now.defaultName);
    }
    return Optional.ofNullable(named);
  }
}
