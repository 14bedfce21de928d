package io.qnbd.server;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandleProxies;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;

/**
 * Signals that ask a server that runs for something: SIGUSR1 for its counters, SIGHUP to read its
 * configuration again. HotSpot has no use of its own for the first, and ends the process on the
 * second unless it is handled here.
 *
 * <p>Java has one sound way to hear a signal: {@code sun.misc.Signal} of the supported module
 * {@code jdk.unsupported}, whose handlers run on a thread of their own. A C handler into Java could
 * run while the thread that it interrupts holds any of the JVM's locks; sigwait and signalfd need
 * the signal blocked in every thread, and the JVM's exist before ours. javac warns at each mention
 * of that class with no way to suppress it, and warnings are errors here; hence the method handles.
 */
final class UserSignal {
  private UserSignal() {}

  /**
   * From now on each such signal runs {@code action}; those that come during a run may be one.
   *
   * @param name without its SIG
   */
  static void onEach(String name, Runnable action) {
    MethodHandles.Lookup lookup = MethodHandles.lookup();
    try {
      Class<?> signal = Class.forName("sun.misc.Signal");
      Class<?> handler = Class.forName("sun.misc.SignalHandler");
      MethodHandle run =
          lookup.findVirtual(Runnable.class, "run", MethodType.methodType(void.class));
      MethodHandle runIgnoringTheSignal =
          MethodHandles.dropArguments(run.bindTo(action), 0, signal);
      Object onSignal = MethodHandleProxies.asInterfaceInstance(handler, runIgnoringTheSignal);
      Object userSignal =
          lookup
              .findConstructor(signal, MethodType.methodType(void.class, String.class))
              .invoke(name);
      MethodHandle handle =
          lookup.findStatic(signal, "handle", MethodType.methodType(handler, signal, handler));
      Object _ = handle.invoke(userSignal, onSignal);
    } catch (Throwable e) {
      throw new AssertionError("sun.misc.Signal is there and lets SIG" + name + " be handled", e);
    }
  }
}
