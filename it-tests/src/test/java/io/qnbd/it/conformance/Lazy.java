package io.qnbd.it.conformance;

import org.jspecify.annotations.Nullable;

/** A thing that is made when it is first asked for. What failed once fails again. Thread-safe. */
final class Lazy<T> {
  private final Maker<T> maker;
  private @Nullable T made;
  private @Nullable Throwable failure;

  /** Makes the thing. */
  interface Maker<T> {
    T make() throws Exception;
  }

  Lazy(Maker<T> maker) {
    this.maker = maker;
  }

  synchronized T get() {
    T present = made;
    if (present == null && failure == null) {
      try {
        present = maker.make();
        made = present;
      } catch (Exception | AssertionError e) {
        failure = e;
      }
    }
    if (present == null) {
      throw new AssertionError("" + failure, failure);
    }
    return present;
  }

  /** The thing if it was made. */
  synchronized @Nullable T made() {
    return made;
  }
}
