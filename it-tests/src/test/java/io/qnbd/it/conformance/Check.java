package io.qnbd.it.conformance;

/** A server that breaks a rule fails the case with a sentence. */
final class Check {
  private Check() {}

  /** Fails with {@code otherwise}, a format, unless the rule holds. */
  @SuppressWarnings("AnnotateFormatMethod") // the annotation is no dependency of the tests
  static void that(boolean holds, String otherwise, Object... values) {
    if (!holds) {
      throw new AssertionError(values.length == 0 ? otherwise : otherwise.formatted(values));
    }
  }
}
