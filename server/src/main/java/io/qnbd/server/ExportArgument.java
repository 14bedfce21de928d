package io.qnbd.server;

import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;

/**
 * One {@code [NAME=]PATH} of {@code serve}. What stands before the first {@code =} is the name,
 * unless it holds a slash: then the whole is a path, so {@code ./a=b} serves the file {@code a=b}.
 *
 * @param name the export's name; without {@code NAME=} the file's own, without its directory. Empty
 *     for {@code =PATH}, the export of a client that names none
 */
record ExportArgument(String name, Path path) {

  /** NBD protocol, "Values": the longest string that a client must understand. */
  static final int NAME_BYTES_MAX = 4096;

  /**
   * Reads {@code [NAME=]PATH}.
   *
   * @throws IllegalArgumentException with a sentence, when the name or the path cannot be used
   */
  static ExportArgument parse(String text) {
    int equals = text.indexOf('=');
    boolean named = equals >= 0 && text.lastIndexOf('/', equals) < 0;
    String file = named ? text.substring(equals + 1) : text;
    if (file.isEmpty()) {
      throw new IllegalArgumentException("no file is named in '" + text + "' (write [NAME=]PATH)");
    }
    Path path = path(file);
    Path fileName = path.getFileName();
    if (fileName == null) {
      throw new IllegalArgumentException("'" + file + "' is a directory, not an image");
    }
    return new ExportArgument(checked(named ? text.substring(0, equals) : "" + fileName), path);
  }

  private static Path path(String file) {
    try {
      return Path.of(file);
    } catch (InvalidPathException e) {
      throw new IllegalArgumentException("not a file name: '" + file + "'", e);
    }
  }

  private static String checked(String name) {
    if (name.chars().anyMatch(Character::isISOControl)) {
      throw new IllegalArgumentException(
          "the export name '" + Printable.text(name) + "' holds control characters: give another");
    }
    int bytes = name.getBytes(StandardCharsets.UTF_8).length;
    if (bytes > NAME_BYTES_MAX) {
      throw new IllegalArgumentException(
          "an export name has %d bytes; NBD permits %d".formatted(bytes, NAME_BYTES_MAX));
    }
    return name;
  }
}
