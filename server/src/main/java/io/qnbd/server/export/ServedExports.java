package io.qnbd.server.export;

import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.handshake.ExportCatalog;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The exports of a server by name. The default export, which clients get for the empty name, is the
 * only one where there is only one, the one chosen explicitly where there are several, and none
 * otherwise.
 *
 * <p>Immutable.
 */
public final class ServedExports implements ExportCatalog {
  private final Map<String, Export> byName;
  private final List<ExportInfo> infos;
  private final @Nullable Export defaultExport;

  /** Serves {@code exports}, with a default export only when there is exactly one. */
  public static ServedExports of(List<Export> exports) {
    return new ServedExports(exports, exports.size() == 1 ? exports.getFirst() : null);
  }

  /**
   * Serves {@code exports}, and the one named {@code defaultName} also under the empty name.
   *
   * @throws IllegalArgumentException when there is no such export
   */
  public static ServedExports withDefault(List<Export> exports, String defaultName) {
    for (Export export : exports) {
      if (export.info().name().equals(defaultName)) {
        return new ServedExports(exports, export);
      }
    }
    throw new IllegalArgumentException(
        "the default export " + WireStrings.quote(defaultName) + " is not among the exports");
  }

  private ServedExports(List<Export> exports, @Nullable Export defaultExport) {
    if (exports.size() > WireLimits.EXPORTS_MAX) {
      throw new IllegalArgumentException(
          exports.size() + " exports, expected at most " + WireLimits.EXPORTS_MAX);
    }
    this.byName = new LinkedHashMap<>();
    for (Export export : exports) {
      if (byName.put(export.info().name(), export) != null) {
        throw new IllegalArgumentException(
            "two exports are named " + WireStrings.quote(export.info().name()));
      }
    }
    this.infos = exports.stream().map(Export::info).toList();
    this.defaultExport = defaultExport;
  }

  @Override
  public List<ExportInfo> list() {
    return infos;
  }

  @Override
  public Optional<ExportInfo> find(String name) {
    return export(name).map(Export::info);
  }

  /** The export of that name; the empty name means the default export. */
  public Optional<Export> export(String name) {
    Export named = byName.get(name);
    if (named == null && name.isEmpty()) {
      return Optional.ofNullable(defaultExport);
    }
    return Optional.ofNullable(named);
  }
}
