package io.qnbd.server;

import java.util.stream.Collectors;

/**
 * Text from outside, made fit for one line of a terminal: a file name or a name inside an image may
 * hold line breaks and escape sequences, and none of them may reach the reader's screen.
 */
final class Printable {
  private Printable() {}

  /** {@code text} with each control character as {@code \\uXXXX}. */
  static String text(String text) {
    return text.codePoints()
        .mapToObj(c -> Character.isISOControl(c) ? "\\u%04x".formatted(c) : Character.toString(c))
        .collect(Collectors.joining());
  }
}
