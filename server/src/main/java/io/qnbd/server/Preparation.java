package io.qnbd.server;

import io.qnbd.image.DiskImages;
import io.qnbd.server.net.NbdServer;
import org.jspecify.annotations.Nullable;

/**
 * What takes time once in a process and is better done while the main thread reads the command
 * line, which takes picocli as long. What fails here fails again where it is needed.
 *
 * <p>Owner: the main thread.
 */
final class Preparation {
  private static @Nullable Thread thread;

  private Preparation() {}

  /**
   * Begins.
   *
   * @param server whether the process will be a server, which needs a network and a log, too
   */
  static void begin(boolean server) {
    chooseSelectors();
    Runnable work =
        () -> {
          if (server) {
            NbdServer.prepare();
          }
          DiskImages.prepare();
        };
    thread =
        Thread.ofPlatform()
            .daemon()
            .name("prepare")
            .uncaughtExceptionHandler((_, _) -> {})
            .start(work);
  }

  /**
   * Has Java take its own selectors. Else Netty's first question for one has it look in every
   * library for others, a tenth of a second of a server's start.
   */
  private static void chooseSelectors() {
    String property = "java.nio.channels.spi.SelectorProvider";
    if (System.getProperty(property) == null) {
      try {
        Class<?> provider = Class.forName("sun.nio.ch.EPollSelectorProvider", false, null);
        System.setProperty(property, provider.getName());
      } catch (ClassNotFoundException _) {
        // another Java, with a name of its own for them, finds them by itself
      }
    }
  }

  /** Waits for the end: two threads that load classes in another order could wait for ever. */
  static void await() {
    Thread preparing = thread;
    if (preparing != null) {
      try {
        preparing.join();
      } catch (InterruptedException _) {
        Thread.currentThread().interrupt();
      }
    }
  }
}
