package io.qnbd.server;

import io.qnbd.server.os.SystemCalls;

/**
 * The second signal. The JVM answers the first SIGTERM, SIGINT or SIGHUP by running its shutdown
 * hooks and from then on swallows every other; a person who asks twice wants the process gone.
 */
final class Signals {
  private Signals() {}

  /** Lets the next signal end the process at once. */
  static void endAtTheNext() {
    SystemCalls.defaultAction(SystemCalls.SIGHUP);
    SystemCalls.defaultAction(SystemCalls.SIGINT);
    SystemCalls.defaultAction(SystemCalls.SIGTERM);
  }
}
