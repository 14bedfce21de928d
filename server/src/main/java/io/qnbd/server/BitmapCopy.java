package io.qnbd.server;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Copies the persistent dirty bitmaps of one disk to another that gets the same contents.
 *
 * <p>{@link #begin} adds them, so that what can't be is refused before any data is copied; they
 * record nothing meanwhile. {@link #finish} fills them and lets those record that do so in the
 * source. One that was not finished is removed when this is closed.
 */
final class BitmapCopy implements AutoCloseable {
  private final Terminal terminal;
  private final String source;
  private final String target;
  private final boolean skipBroken;

  private final List<BitmapInfo> begun = new ArrayList<>();
  private @Nullable Bitmaps unfinished;

  /**
   * Nothing is done yet.
   *
   * @param source the source's name for messages; likewise {@code target}
   * @param skipBroken whether bitmaps that can't be believed are left out with a warning
   */
  BitmapCopy(Terminal terminal, String source, String target, boolean skipBroken) {
    this.terminal = terminal;
    this.source = source;
    this.target = target;
    this.skipBroken = skipBroken;
  }

  void begin(DiskImage from, DiskImage to) throws IOException {
    List<BitmapInfo> copied = believed(from);
    if (copied.isEmpty()) {
      return;
    }
    if (from.virtualBytes() != to.virtualBytes()) {
      throw new IOException(
          "%s has %d bytes and %s %d: bitmaps are copied to a disk of the same size only"
              .formatted(source, from.virtualBytes(), target, to.virtualBytes()));
    }
    Bitmaps bitmaps = to.bitmaps();
    unfinished = bitmaps;
    for (BitmapInfo info : copied) {
      bitmaps.add(info.name(), info.granularityBytes(), false);
      begun.add(info);
    }
  }

  private List<BitmapInfo> believed(DiskImage from) throws IOException {
    Bitmaps bitmaps = bitmapsOf(from);
    try {
      bitmaps.requireAllListed();
    } catch (CorruptImageException e) {
      if (!skipBroken) {
        throw e;
      }
      warn(String.valueOf(e.getMessage()));
    }
    List<BitmapInfo> believed = new ArrayList<>();
    for (BitmapInfo info : bitmaps.list()) {
      if (info.consistent()) {
        believed.add(info);
      } else if (skipBroken) {
        warn("%s: bitmap %s can't be believed and is left out".formatted(source, info.name()));
      } else {
        throw new IOException(
            ("%s: bitmap %s can't be believed: leave it out with --skip-broken-bitmaps, or remove"
                    + " it with 'qnbd bitmap remove'")
                .formatted(source, info.name()));
      }
    }
    return believed;
  }

  private Bitmaps bitmapsOf(DiskImage from) throws IOException {
    try {
      return from.bitmaps();
    } catch (UnsupportedImageException e) {
      throw new IOException(source + ": has no persistent bitmaps to copy: not qcow2", e);
    }
  }

  private void warn(String sentence) {
    terminal.err().println("qnbd: warning: " + Printable.text(sentence));
  }

  void finish(DiskImage from) throws IOException {
    Bitmaps bitmaps = unfinished;
    if (bitmaps == null) {
      return;
    }
    for (BitmapInfo info : begun) {
      bitmaps.merge(info.name(), from, info.name());
    }
    for (BitmapInfo info : begun) {
      if (info.enabled()) {
        bitmaps.enable(info.name());
      }
    }
    unfinished = null;
  }

  /** An empty bitmap that is believed would say that nothing has changed. */
  @Override
  public void close() throws IOException {
    Bitmaps bitmaps = unfinished;
    unfinished = null;
    if (bitmaps != null) {
      for (BitmapInfo info : begun) {
        bitmaps.remove(info.name());
      }
    }
  }
}
