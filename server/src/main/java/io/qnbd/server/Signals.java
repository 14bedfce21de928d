package io.qnbd.server;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;

/**
 * The second signal. The JVM answers the first SIGTERM, SIGINT or SIGHUP by running its shutdown
 * hooks and from then on swallows every other; a person who asks twice wants the process gone.
 */
final class Signals {
  private Signals() {}

  private static final int SIGHUP = 1;
  private static final int SIGINT = 2;
  private static final int SIGTERM = 15;

  /** {@code void (*signal(int, void (*)(int)))(int)} of the C library. */
  private static final FunctionDescriptor SIGNAL =
      FunctionDescriptor.of(ValueLayout.ADDRESS, ValueLayout.JAVA_INT, ValueLayout.ADDRESS);

  /** Lets the next signal end the process at once, by giving the signals their default action. */
  @SuppressWarnings("restricted") // the C library declares signal() as SIGNAL says
  static void endAtTheNext() {
    Linker linker = Linker.nativeLinker();
    linker
        .defaultLookup()
        .find("signal")
        .ifPresent(address -> {
          MethodHandle signal = linker.downcallHandle(address, SIGNAL);
          restore(signal, SIGHUP);
          restore(signal, SIGINT);
          restore(signal, SIGTERM);
        });
  }

  private static void restore(MethodHandle signal, int number) {
    try {
      MemorySegment _ = (MemorySegment) signal.invokeExact(number, MemorySegment.NULL); // SIG_DFL
    } catch (Throwable e) {
      throw new AssertionError("signal() of the C library throws nothing", e);
    }
  }
}
