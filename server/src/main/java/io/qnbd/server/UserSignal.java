package io.qnbd.server;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;

/**
 * Signals that ask a server that runs for something: SIGUSR1 for its counters, SIGHUP to read its
 * configuration again. HotSpot has no use of its own for the first, and ends the process on the
 * second unless it is handled here.
 *
 * <p>Java has one sound way to hear a signal: {@code sun.misc.Signal} of the supported module
 * {@code jdk.unsupported}, whose handlers run on a thread of their own. A C handler into Java could
 * run while the thread that it interrupts holds any of the JVM's locks; sigwait and signalfd need
 * the signal blocked in every thread, and the JVM's exist before ours. javac warns at each mention
 * of that class with no way to suppress it, and warnings are errors here; hence the reflection.
 */
final class UserSignal {
  private UserSignal() {}

  /**
   * From now on each such signal runs {@code action}; those that come during a run may be one.
   *
   * @param name without its SIG
   */
  static void onEach(String name, Runnable action) {
    try {
      Class<?> signal = Class.forName("sun.misc.Signal");
      Class<?> handler = Class.forName("sun.misc.SignalHandler");
      InvocationHandler onSignal =
          (_, method, arguments) -> {
            if (method.getDeclaringClass() == Object.class) {
              return method.invoke(action, arguments);
            }
            action.run();
            return null;
          };
      signal
          .getMethod("handle", signal, handler)
          .invoke(
              null,
              signal.getConstructor(String.class).newInstance(name),
              Proxy.newProxyInstance(handler.getClassLoader(), new Class<?>[] {handler}, onSignal));
    } catch (ReflectiveOperationException e) {
      throw new LinkageError("sun.misc.Signal is there and lets SIG" + name + " be handled", e);
    }
  }
}
