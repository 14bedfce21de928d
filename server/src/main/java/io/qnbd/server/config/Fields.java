package io.qnbd.server.config;

import io.qnbd.protocol.WireStrings;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * The keys of one table with their values, taken one by one: each is known from then on, and in the
 * end none may be left that is not.
 *
 * <p>Values are strings, longs, booleans, lists and maps, whatever they were written in. A key that
 * is absent gives null, or the default.
 *
 * <p>Owner: one reader.
 */
final class Fields {

  /** Where a key stands, as the start of a sentence about it. */
  @FunctionalInterface
  interface Place {
    /**
     * Says where.
     *
     * @param key one that is there, or null for the table itself
     */
    String of(@Nullable String key);
  }

  private final Map<String, Object> left;
  private final Set<String> known = new LinkedHashSet<>();
  private final Place place;
  private final Path directory;

  /**
   * @param directory what relative paths are relative to
   */
  Fields(Map<String, ?> values, Place place, Path directory) {
    this.left = new LinkedHashMap<>(values);
    this.place = place;
    this.directory = directory;
  }

  private @Nullable Object take(String key) {
    known.add(key);
    return left.remove(key);
  }

  /** Takes a key whose value is read elsewhere. */
  void known(String key) {
    Object _ = take(key);
  }

  ConfigException wrong(String key, String what) {
    return new ConfigException(place.of(key) + " " + what);
  }

  ConfigException wrongTable(String what) {
    return new ConfigException(place.of(null) + " " + what);
  }

  private ConfigException wrongType(String key, String expected) {
    return wrong(key, "must be " + expected);
  }

  @Nullable String text(String key) throws ConfigException {
    Object value = take(key);
    if (value == null || value instanceof String) {
      return (String) value;
    }
    throw wrongType(key, "a string");
  }

  boolean flag(String key) throws ConfigException {
    Object value = take(key);
    if (value == null) {
      return false;
    }
    if (value instanceof Boolean flag) {
      return flag;
    }
    throw wrongType(key, "true or false");
  }

  /** A number from {@code min} to {@code max}. */
  long number(String key, long missing, long min, long max) throws ConfigException {
    Object value = take(key);
    if (value == null) {
      return missing;
    }
    if (!(value instanceof Long number)) {
      throw wrongType(key, "a whole number");
    }
    return inRange(key, number, min, max);
  }

  int count(String key, int missing, int min, int max) throws ConfigException {
    return (int) number(key, missing, min, max);
  }

  /** Bytes as a number, or as a string with a unit. */
  @Nullable Long size(String key, long min) throws ConfigException {
    Object value = take(key);
    if (value == null) {
      return null;
    }
    if (value instanceof Long number) {
      return inRange(key, number, min, Long.MAX_VALUE);
    }
    if (value instanceof String text) {
      return inRange(key, parsed(key, text, Sizes::parse), min, Long.MAX_VALUE);
    }
    throw wrongType(key, "a size: a number of bytes, or a string such as \"10G\"");
  }

  private long inRange(String key, long value, long min, long max) throws ConfigException {
    if (value < min || value > max) {
      throw wrong(
          key,
          max == Long.MAX_VALUE
              ? "is %d, expected at least %d".formatted(value, min)
              : "is %d, expected %d to %d".formatted(value, min, max));
    }
    return value;
  }

  /** What {@code parser}, whose refusals are sentences, makes of a string. */
  <T> @Nullable T parsed(String key, Function<String, T> parser) throws ConfigException {
    String text = text(key);
    return text == null ? null : parsed(key, text, parser);
  }

  private <T> T parsed(String key, String text, Function<String, T> parser) throws ConfigException {
    try {
      return parser.apply(text);
    } catch (IllegalArgumentException e) {
      throw wrong(key, "cannot be used: " + e.getMessage());
    }
  }

  @Nullable Path path(String key) throws ConfigException {
    String text = text(key);
    return text == null ? null : path(key, text);
  }

  private Path path(String key, String text) throws ConfigException {
    if (text.isEmpty()) {
      throw wrong(key, "names no file");
    }
    try {
      return directory.resolve(text);
    } catch (InvalidPathException _) {
      throw wrong(key, "is no file name: " + WireStrings.quote(text));
    }
  }

  /** A string, or a list of them. */
  List<String> texts(String key) throws ConfigException {
    Object value = take(key);
    List<?> elements =
        value == null ? List.of() : value instanceof List<?> list ? list : List.of(value);
    List<String> texts = new ArrayList<>();
    for (Object element : elements) {
      if (!(element instanceof String text)) {
        throw wrongType(key, "a string or a list of strings");
      }
      texts.add(text);
    }
    return texts;
  }

  <T> List<T> eachParsed(String key, Function<String, T> parser) throws ConfigException {
    List<T> values = new ArrayList<>();
    for (String text : texts(key)) {
      values.add(parsed(key, text, parser));
    }
    return values;
  }

  List<Path> paths(String key) throws ConfigException {
    List<Path> paths = new ArrayList<>();
    for (String text : texts(key)) {
      paths.add(path(key, text));
    }
    return paths;
  }

  /**
   * To be called when all keys that mean something have been taken.
   *
   * @throws ConfigException about a key that is left, with the known one that looks most like it
   */
  void requireNoMore() throws ConfigException {
    for (String key : left.keySet()) {
      String nearest =
          nearestKnown(key)
              .map(near -> "; did you mean '" + near + "'?")
              .orElse("; known are " + String.join(", ", known));
      throw wrong(key, "is not known here" + nearest);
    }
  }

  private Optional<String> nearestKnown(String key) {
    return known.stream()
        .min(Comparator.comparingInt(candidate -> distance(key, candidate)))
        .filter(candidate -> distance(key, candidate) <= Math.max(2, key.length() / 3));
  }

  /** How many letters to add, remove or replace to make one of the other. */
  static int distance(String one, String other) {
    int[] row = new int[other.length() + 1];
    for (int j = 0; j <= other.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= one.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= other.length(); j++) {
        int replaced = diagonal + (one.charAt(i - 1) == other.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(replaced, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[other.length()];
  }
}
