package io.qnbd.server;

import io.qnbd.image.ProgressListener;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;

/**
 * Shows how far a slow step is: to a person a line that is written over, to a log one line when the
 * step turns out to be slow and one at its end. What is over within a second is not shown.
 *
 * <p>Owner: the thread that does the work.
 */
final class ProgressLine implements ProgressListener, AutoCloseable {
  private static final long SHOWN_AFTER_NANOS = TimeUnit.SECONDS.toNanos(1);

  /** Fast enough to see it move, slow enough to cost nothing. */
  private static final long REPAINT_NANOS = TimeUnit.MILLISECONDS.toNanos(200);

  private static final String TO_START_OF_LINE = "\r";
  private static final String ERASE_REST_OF_LINE = "\u001b[K";

  private final Terminal terminal;
  private final String image;
  private final LongSupplier nanoTime;
  private final long start;
  private boolean shown;
  private long shownAt;

  ProgressLine(Terminal terminal, Path image) {
    this(terminal, image.toString());
  }

  /** For what need not be a file: the URI of an export. */
  ProgressLine(Terminal terminal, String image) {
    this(terminal, image, System::nanoTime);
  }

  ProgressLine(Terminal terminal, String image, LongSupplier nanoTime) {
    this.terminal = terminal;
    this.image = Printable.text(image);
    this.nanoTime = nanoTime;
    this.start = nanoTime.getAsLong();
  }

  @Override
  public void progress(String what, long done, long total) {
    long now = nanoTime.getAsLong();
    if (now - start < SHOWN_AFTER_NANOS) {
      return;
    }
    String line =
        "qnbd: %s: %s: %d%%".formatted(image, what, total <= 0 ? 100 : percent(done, total));
    if (!terminal.watched()) {
      if (!shown) {
        terminal.err().println(line);
      }
    } else if (!shown || now - shownAt >= REPAINT_NANOS) {
      terminal.err().print(TO_START_OF_LINE + line + ERASE_REST_OF_LINE);
      shownAt = now;
    }
    shown = true;
    terminal.err().flush();
  }

  private static long percent(long done, long total) {
    return (long) (100.0 * Math.min(done, total) / total);
  }

  /** The work is over, well or not. */
  @Override
  public void close() {
    if (!shown) {
      return;
    }
    if (terminal.watched()) {
      terminal.err().print(TO_START_OF_LINE + ERASE_REST_OF_LINE);
    } else {
      long seconds = TimeUnit.NANOSECONDS.toSeconds(nanoTime.getAsLong() - start);
      terminal.err().println("qnbd: %s: ended after %d s".formatted(image, seconds));
    }
    terminal.err().flush();
  }
}
