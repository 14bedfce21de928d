package io.qnbd.image;

/** Told how far a long operation has come, on the thread that called it. */
@FunctionalInterface
public interface ProgressListener {
  /** Hears nothing. */
  ProgressListener NONE = (_, _, _) -> {};

  /**
   * A part of the work is done.
   *
   * @param what the step that is being done, for people to read
   * @param done units of this step, at most {@code total}
   */
  void progress(String what, long done, long total);
}
