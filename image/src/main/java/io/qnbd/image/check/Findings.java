package io.qnbd.image.check;

import io.qnbd.image.CheckReport;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Counts what was found, and keeps the first sentences about it. Not thread-safe. */
final class Findings {
  private final List<String> texts = new ArrayList<>();
  private long corruptions;
  private long leaks;
  private @Nullable String firstDamage;

  void corruption(String format, Object... arguments) {
    corruptions++;
    if (firstDamage == null) {
      firstDamage = text(format, arguments);
    }
    note(format, arguments);
  }

  /** A corruption that is nothing but a COPIED flag, which follows from the references. */
  void wrongFlag(String format, Object... arguments) {
    corruptions++;
    note(format, arguments);
  }

  void leak(String format, Object... arguments) {
    leaks++;
    note(format, arguments);
  }

  /** Something to say that is no fault of the tables. */
  void note(String format, Object... arguments) {
    if (texts.size() < CheckReport.FINDINGS_MAX) {
      texts.add(text(format, arguments));
    }
  }

  @SuppressWarnings("AnnotateFormatMethod") // the annotation would be a dependency
  private static String text(String format, Object... arguments) {
    return String.format(format, arguments);
  }

  /** The first corruption that isn't just a wrong flag, null if there is none. */
  @Nullable String firstDamage() {
    return firstDamage;
  }

  long corruptions() {
    return corruptions;
  }

  long leaks() {
    return leaks;
  }

  List<String> texts() {
    return texts;
  }
}
