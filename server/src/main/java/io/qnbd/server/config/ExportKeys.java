package io.qnbd.server.config;

import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import io.qnbd.server.export.ExportSettings;
import io.qnbd.server.export.RateLimits;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Map;
import java.util.Objects;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * The keys that describe an export. They are the same in the configuration file, in a control
 * request and, with other names for some, on the command line.
 */
public final class ExportKeys {
  private ExportKeys() {}

  public static final String NAME = "name";
  public static final String PATH = "path";
  public static final String DESCRIPTION = "description";
  public static final String FORMAT = "format";
  public static final String READ_ONLY = "read-only";
  public static final String TEMPORARY = "temporary";
  public static final String SNAPSHOT = "snapshot";
  public static final String CREATE = "create";
  public static final String CACHE = "cache";
  public static final String BACKING_POLICY = "backing-policy";
  public static final String DATA_FILE = "data-file";
  public static final String PASSPHRASE_FILE = "passphrase-file";
  public static final String OVERLAP_CHECK = "overlap-check";
  public static final String L2_CACHE = "l2-cache";
  public static final String REF_BATCH = "ref-batch";
  public static final String REF_RESERVE = "ref-reserve";
  public static final String DEFAULT = "default";
  public static final String TLS_REQUIRED = "tls-required";
  public static final String ALLOWED_SUBJECTS = "allowed-subjects";
  public static final String CONNECTIONS_MAX = "max-connections";
  public static final String CONNECTIONS_PER_CLIENT_MAX = "max-connections-per-client";
  public static final String BYTES_PER_SECOND = "bytes-per-second";
  public static final String REQUESTS_PER_SECOND = "requests-per-second";

  private static final long L2_CACHE_BYTES_MIN = 64 << 10;

  /** A batch of a million decrements is 16 MiB of memory and leaks 64 GiB at worst. */
  private static final int REF_COUNT_MAX = 1 << 20;

  /** More connections than a machine has; it keeps a slip of the finger from meaning anything. */
  private static final int CONNECTIONS_MAX_MAX = 1 << 20;

  /**
   * Reads an export.
   *
   * @param values strings, longs and booleans by key
   * @param called what a key is called in the sentences about it
   * @param directory what a relative path is relative to
   * @throws ConfigException when a key is unknown or missing, or its value cannot be used
   */
  public static ExportPlan read(Map<String, ?> values, UnaryOperator<String> called, Path directory)
      throws ConfigException {
    Fields.Place place = key -> key == null ? "an export" : called.apply(key);
    return read(new Fields(values, place, directory), null);
  }

  /**
   * @param tableName the name that the export has from its table, or null
   */
  static ExportPlan read(Fields fields, @Nullable String tableName) throws ConfigException {
    Path path = fields.path(PATH);
    String ownName = fields.text(NAME);
    if (ownName != null && tableName != null) {
      throw fields.wrong(NAME, "is for [[export]]: the table [export." + tableName + "] has one");
    }
    String name = tableName == null ? ownName : tableName;
    boolean temporary = fields.flag(TEMPORARY);
    OpenOptions open = openOptions(fields);
    Path passphraseFile = fields.path(PASSPHRASE_FILE);
    Long createBytes = fields.size(CREATE, 0);
    boolean chosen = fields.flag(DEFAULT);
    String description = fields.text(DESCRIPTION);
    boolean tlsRequired = fields.flag(TLS_REQUIRED);
    HashSet<String> subjects = new HashSet<>(fields.texts(ALLOWED_SUBJECTS));
    int connectionsMax = fields.count(CONNECTIONS_MAX, 0, 0, CONNECTIONS_MAX_MAX);
    int perClientMax = fields.count(CONNECTIONS_PER_CLIENT_MAX, 0, 0, CONNECTIONS_MAX_MAX);
    Long bytesPerSecond = fields.size(BYTES_PER_SECOND, 0);
    long requestsPerSecond = fields.number(REQUESTS_PER_SECOND, 0, 0, Long.MAX_VALUE);
    fields.requireNoMore();
    if (path == null) {
      throw fields.wrongTable("has no 'path', the image's file");
    }
    Path file = path.getFileName();
    if (file == null) {
      throw fields.wrong(PATH, "is a directory, not an image: " + path);
    }
    requireSense(fields, open, temporary, createBytes);
    requireString(fields, DESCRIPTION, description);
    if (name != null) {
      requireString(fields, tableName == null ? NAME : null, name);
    }
    ExportSettings settings =
        new ExportSettings(
            name == null ? file.toString() : name,
            Objects.requireNonNullElse(description, ""),
            tlsRequired,
            subjects,
            connectionsMax,
            perClientMax,
            new RateLimits(Objects.requireNonNullElse(bytesPerSecond, 0L), requestsPerSecond));
    return new ExportPlan(settings, path, open, temporary, createBytes, chosen, passphraseFile);
  }

  private static OpenOptions openOptions(Fields fields) throws ConfigException {
    OpenOptions defaults = OpenOptions.DEFAULT;
    Long l2CacheBytes = fields.size(L2_CACHE, L2_CACHE_BYTES_MIN);
    return defaults
        .withFormat(fields.parsed(FORMAT, Choice::format))
        .withReadOnly(fields.flag(READ_ONLY))
        .withCacheMode(
            Objects.requireNonNullElse(
                fields.parsed(CACHE, Choice::cacheMode), defaults.cacheMode()))
        .withBackingPolicy(
            Objects.requireNonNullElse(
                fields.parsed(BACKING_POLICY, Choice::backingPolicy), defaults.backingPolicy()))
        .withOverlapCheck(
            Objects.requireNonNullElse(
                fields.parsed(OVERLAP_CHECK, Choice::overlapCheck), defaults.overlapCheck()))
        .withL2CacheBytes(Objects.requireNonNullElse(l2CacheBytes, defaults.l2CacheBytes()))
        .withRefBatch(fields.count(REF_BATCH, defaults.refBatch(), 0, REF_COUNT_MAX))
        .withRefReserve(fields.count(REF_RESERVE, defaults.refReserve(), 0, REF_COUNT_MAX))
        .withSnapshot(fields.text(SNAPSHOT))
        .withDataFile(fields.path(DATA_FILE));
  }

  private static void requireSense(
      Fields fields, OpenOptions open, boolean temporary, @Nullable Long createBytes)
      throws ConfigException {
    if (open.snapshot() != null && createBytes != null) {
      throw fields.wrong(SNAPSHOT, "needs an image that is there: it and 'create' exclude another");
    }
    if (open.snapshot() != null && open.format() == ImageFormat.RAW) {
      throw fields.wrong(SNAPSHOT, "needs qcow2: raw images have no snapshots");
    }
    if (temporary && open.readOnly() && open.snapshot() == null) {
      throw fields.wrong(TEMPORARY, "is for writing: it and 'read-only' exclude one another");
    }
  }

  /** What the protocol can carry and a terminal can show. */
  private static void requireString(Fields fields, @Nullable String key, @Nullable String text)
      throws ConfigException {
    if (text == null) {
      return;
    }
    String what = null;
    int bytes = text.getBytes(StandardCharsets.UTF_8).length;
    if (text.chars().anyMatch(Character::isISOControl)) {
      what = "holds control characters: " + WireStrings.quote(text);
    } else if (bytes > WireLimits.STRING_BYTES_MAX) {
      what = "has %d bytes; NBD permits %d".formatted(bytes, WireLimits.STRING_BYTES_MAX);
    }
    if (what != null) {
      throw key == null ? fields.wrongTable("has a name that " + what) : fields.wrong(key, what);
    }
  }
}
