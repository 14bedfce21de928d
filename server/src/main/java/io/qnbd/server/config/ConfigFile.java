package io.qnbd.server.config;

import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import io.qnbd.server.tls.TlsFiles;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.tomlj.Toml;
import org.tomlj.TomlArray;
import org.tomlj.TomlParseError;
import org.tomlj.TomlParseResult;
import org.tomlj.TomlPosition;
import org.tomlj.TomlTable;
import org.tomlj.TomlVersion;

/**
 * Reads a configuration file: TOML 1.0, whose keys {@code docs/configuration.md} explains.
 *
 * <p>A sentence about something in it starts with the file and the line.
 */
public final class ConfigFile {
  private static final String EXPORT = "export";
  private static final String TLS = "tls";
  private static final String LIMITS = "limits";

  /** A thousand exports with every key take less; it bounds the memory of a file by mistake. */
  private static final long FILE_BYTES_MAX = 4 << 20;

  /** More threads than this only wait for each other; each costs its stack. */
  private static final int WORKERS_MAX = 1024;

  private static final int CONNECTIONS_MAX_MAX = 1 << 20;
  private static final int REQUESTS_MAX = 1 << 16;
  private static final int SECONDS_MAX = 24 * 60 * 60;

  /** The largest request, so that none is ever too large. */
  private static final long BYTES_MIN = WireLimits.PAYLOAD_BYTES_MAX;

  private final Path file;
  private final Path directory;

  /** Of exports by name, the place that named them. */
  private final Map<String, String> named = new HashMap<>();

  private @Nullable String chosenAt;

  private ConfigFile(Path file) {
    this.file = file;
    this.directory = Objects.requireNonNullElse(file.toAbsolutePath().getParent(), file);
  }

  /**
   * Reads a file.
   *
   * @throws ConfigException when it is no TOML, or holds something that cannot be used
   * @throws IOException when it cannot be read
   */
  public static ServerConfig read(Path file) throws IOException {
    return new ConfigFile(file).read();
  }

  private ServerConfig read() throws IOException {
    TomlParseResult toml = parsed();
    Map<String, Object> top = values(toml);
    Map<String, String> serverKeys = new HashMap<>();
    Fields fields = new Fields(top, place(toml, "", null), directory);
    List<ListenAddress> addresses = new ArrayList<>(fields.eachParsed("listen", TcpAddress::parse));
    int unixMode =
        Objects.requireNonNullElse(
            fields.parsed("unix-mode", ConfigFile::octal), ListenAddress.Unix.MODE_DEFAULT);
    for (Path path : fields.paths("unix")) {
      addresses.add(new ListenAddress.Unix(path, unixMode));
    }
    Path control = fields.path("control");
    ServerLimits limits = ServerLimits.DEFAULT;
    limits =
        limits
            .withWorkerThreads(fields.count("workers", limits.workerThreads(), 1, WORKERS_MAX))
            .withFastPath(
                Objects.requireNonNullElse(
                    fields.parsed("fast-path", Choice::onOff), limits.fastPath()));
    TomlTable tlsTable = table(fields, toml, TLS);
    TomlTable limitsTable = table(fields, toml, LIMITS);
    fields.known(EXPORT);
    fields.requireNoMore();
    if (limitsTable != null) {
      limits = limits(subFields(limitsTable, LIMITS), limits);
    }
    TlsMode mode = TlsMode.OFF;
    TlsFiles files = null;
    if (tlsTable != null) {
      Fields tls = subFields(tlsTable, TLS);
      mode = Objects.requireNonNullElse(tls.parsed("mode", Choice::tlsMode), TlsMode.OFF);
      files = tlsFiles(tls, mode);
    }
    top.forEach((key, value) -> {
      if (!key.equals(EXPORT)) {
        flatten(key, value, serverKeys);
      }
    });
    return new ServerConfig(
        file,
        addresses,
        control,
        limits,
        mode,
        files,
        toml.contains(EXPORT) ? exports(toml) : List.of(),
        serverKeys);
  }

  /** As chmod reads it. */
  private static int octal(String text) {
    if (!text.matches("0?[0-7]{3}")) {
      throw new IllegalArgumentException("'" + text + "' is no mode such as \"0660\"");
    }
    return Integer.parseInt(text, 8);
  }

  private TomlParseResult parsed() throws IOException {
    if (Files.size(file) > FILE_BYTES_MAX) {
      throw new ConfigException("%s: has more than %d bytes".formatted(file, FILE_BYTES_MAX));
    }
    TomlParseResult toml;
    try {
      toml = Toml.parse(Files.readString(file), TomlVersion.V1_0_0);
    } catch (CharacterCodingException e) {
      throw new ConfigException(file + ": is not UTF-8");
    } catch (StackOverflowError e) {
      // The parser descends into nested brackets.
      throw new ConfigException(file + ": brackets are nested too deeply");
    }
    if (toml.hasErrors()) {
      TomlParseError first = toml.errors().getFirst();
      throw new ConfigException(
          "%s:%d: %s".formatted(file, first.position().line(), first.getMessage()));
    }
    return toml;
  }

  private static ServerLimits limits(Fields fields, ServerLimits defaults) throws ConfigException {
    int connections =
        fields.count("max-connections", defaults.connectionsMax(), 1, CONNECTIONS_MAX_MAX);
    int requests =
        fields.count("requests-per-connection", defaults.requestsPerConnection(), 1, REQUESTS_MAX);
    Long bytes = fields.size("bytes-per-connection", BYTES_MIN);
    Long total = fields.size("bytes-total", BYTES_MIN);
    int handshake =
        fields.count(
            "handshake-seconds", (int) defaults.handshakeDeadline().toSeconds(), 1, SECONDS_MAX);
    int stall =
        fields.count("stall-seconds", (int) defaults.stallDeadline().toSeconds(), 1, SECONDS_MAX);
    fields.requireNoMore();
    return defaults
        .withConnectionsMax(connections)
        .withInFlight(
            requests,
            Objects.requireNonNullElse(bytes, defaults.bytesPerConnection()),
            Objects.requireNonNullElse(total, defaults.bytesTotal()))
        .withHandshakeDeadline(Duration.ofSeconds(handshake))
        .withStallDeadline(Duration.ofSeconds(stall));
  }

  private static @Nullable TlsFiles tlsFiles(Fields fields, TlsMode mode) throws ConfigException {
    Path certificates = fields.path("certificates");
    Path cert = fields.path("cert");
    Path key = fields.path("key");
    Path ca = fields.path("ca");
    boolean verifyClient = fields.flag("verify-client");
    Path psk = fields.path("psk");
    fields.requireNoMore();
    boolean single = cert != null || key != null || ca != null;
    if (mode == TlsMode.OFF) {
      return null;
    }
    if (psk != null) {
      if (certificates != null || single || verifyClient) {
        throw fields.wrong("psk", "and certificates exclude one another");
      }
      return new TlsFiles.Psk(psk);
    }
    if (certificates != null) {
      if (single) {
        throw fields.wrong("certificates", "and 'cert', 'key', 'ca' exclude one another");
      }
      return TlsFiles.X509.in(certificates, verifyClient);
    }
    if (cert == null || key == null) {
      throw fields.wrong("mode", "needs 'certificates', 'cert' with 'key', or 'psk'");
    }
    if (verifyClient && ca == null) {
      throw fields.wrong("verify-client", "needs 'ca'");
    }
    return new TlsFiles.X509(cert, key, ca, verifyClient);
  }

  private List<ExportPlan> exports(TomlParseResult toml) throws ConfigException {
    List<ExportPlan> plans = new ArrayList<>();
    Object exports = toml.get(List.of(EXPORT));
    if (exports instanceof TomlArray array) {
      for (int i = 0; i < array.size(); i++) {
        TomlPosition position = array.inputPositionOf(i);
        if (!(array.get(i) instanceof TomlTable table)) {
          throw new ConfigException(
              at(position) + "export must be tables: write [[export]] before each");
        }
        add(plans, table, position, null);
      }
    } else if (exports instanceof TomlTable tables) {
      List<String> names = new ArrayList<>(tables.keySet());
      names.sort(Comparator.comparingInt(name -> positionOf(tables, name).line()));
      for (String name : names) {
        TomlPosition position = positionOf(tables, name);
        if (!(tables.get(List.of(name)) instanceof TomlTable table)) {
          throw new ConfigException(
              at(position)
                  + "export."
                  + name
                  + " must be a table: write [export.NAME], or [[export]] with a name in it");
        }
        add(plans, table, position, name);
      }
    } else {
      throw new ConfigException(
          at(positionOf(toml, EXPORT)) + "export must be tables: write [[export]] before each");
    }
    if (plans.size() > WireLimits.EXPORTS_MAX) {
      throw new ConfigException(
          "%s: has %d exports, the most is %d"
              .formatted(file, plans.size(), WireLimits.EXPORTS_MAX));
    }
    return plans;
  }

  private void add(
      List<ExportPlan> plans, TomlTable table, @Nullable TomlPosition start, @Nullable String name)
      throws ConfigException {
    Fields fields = new Fields(values(table), place(table, "", start), directory);
    ExportPlan plan = ExportKeys.read(fields, name);
    String here = at(start);
    String before = named.putIfAbsent(plan.name(), here);
    if (before != null) {
      throw new ConfigException(
          "%sanother export is named '%s' already (%s): give one another name"
              .formatted(here, plan.name(), before.strip().replaceFirst(":$", "")));
    }
    if (plan.chosen()) {
      if (chosenAt != null) {
        throw new ConfigException(
            "%sanother export is the default already (%s)"
                .formatted(here, chosenAt.strip().replaceFirst(":$", "")));
      }
      chosenAt = here;
    }
    plans.add(plan);
  }

  private @Nullable TomlTable table(Fields fields, TomlTable parent, String key)
      throws ConfigException {
    Object value = parent.get(List.of(key));
    if (value != null && !(value instanceof TomlTable)) {
      throw fields.wrong(key, "must be a table: write [" + key + "]");
    }
    fields.known(key);
    return (TomlTable) value;
  }

  private Fields subFields(TomlTable table, String name) {
    return new Fields(values(table), place(table, name + ".", null), directory);
  }

  /** The place of a table's keys. */
  private Fields.Place place(TomlTable table, String prefix, @Nullable TomlPosition start) {
    return key -> {
      if (key == null) {
        return at(start) + "this export";
      }
      TomlPosition position = table.inputPositionOf(List.of(key));
      return at(position == null ? start : position) + prefix + key;
    };
  }

  private String at(@Nullable TomlPosition position) {
    return position == null ? file + ": " : file + ":" + position.line() + ": ";
  }

  private static TomlPosition positionOf(TomlTable table, String key) {
    return Objects.requireNonNull(table.inputPositionOf(List.of(key)), "a key that is there");
  }

  /** A table as plain values: lists for arrays, maps for tables. */
  private static Map<String, Object> values(TomlTable table) {
    Map<String, Object> values = new LinkedHashMap<>();
    for (String key : table.keySet()) {
      values.put(key, plain(Objects.requireNonNull(table.get(List.of(key)))));
    }
    return values;
  }

  private static Object plain(Object value) {
    if (value instanceof TomlTable table) {
      return values(table);
    }
    if (value instanceof TomlArray array) {
      List<Object> elements = new ArrayList<>();
      for (int i = 0; i < array.size(); i++) {
        elements.add(plain(array.get(i)));
      }
      return elements;
    }
    return value;
  }

  private static void flatten(String key, Object value, Map<String, String> into) {
    if (value instanceof Map<?, ?> map) {
      map.forEach((inner, each) -> flatten(key + "." + inner, each, into));
    } else {
      into.put(key, value.toString());
    }
  }
}
